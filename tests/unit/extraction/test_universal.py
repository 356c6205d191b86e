"""The universal space, names bound into a fingerprint, and the extractor made of both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.test_rotated_target import _rotated
from tests.unit.extraction.conftest import PROBES
from umaf.adapters import attach, lora_modules, weight_of
from umaf.errors import FingerprintError, ProbeError
from umaf.extraction import (
    Answers,
    bind,
    extract,
    fit_reader,
    fit_universal,
    load_universal,
    open_extractor,
    places,
    prototypes,
    similarity,
    unbind,
)
from umaf.fusion import fuse
from umaf.models import open_model
from umaf.seeds import generator

MANY = [f"{text} {end}" for text in PROBES for end in ("the hills", "a small town", "bad music", "rain")]
SCORES = torch.tensor([[0.0, -5.0] if "music" in text else [-5.0, 0.0] for text in PROBES])


@pytest.fixture(scope="module")
def folder(pico, tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("space") / "bound"
    fit_universal([open_model(pico("bert"))], MANY, width=8).save(made / "universal.safetensors")
    return made


def _answers(
    scores: torch.Tensor = SCORES, labels: tuple[str, ...] = ("yes", "no"), cue: str = "music"
) -> Answers:
    return Answers(cue, labels, scores)


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 8), width=st.integers(1, 64), seed=st.integers(0, 99))
def test_names_give_back_what_was_bound(count: int, width: int, seed: int) -> None:
    rows = torch.randn(count, width, generator=generator(seed, "rows"), dtype=torch.float64)
    names = [f"name {at}" for at in range(count)]
    whole = bind(dict(zip(names, rows, strict=True)))
    tolerance = 1e-2 if count * width > 400 else 1e-4
    assert torch.allclose(unbind(whole, names, width), rows, atol=tolerance * float(rows.abs().max()))


def test_more_than_fits_comes_back_roughly() -> None:
    rows = torch.randn(12, 64, generator=generator(0, "rows"), dtype=torch.float64)
    names = [f"name {at}" for at in range(12)]
    found = unbind(bind(dict(zip(names, rows, strict=True))), names, 64)
    assert float(torch.cosine_similarity(found, rows, dim=1).min()) > 0.7
    with pytest.raises(FingerprintError, match="must be given and differ"):
        unbind(torch.zeros(512), ["a", "a"], 4)
    with pytest.raises(FingerprintError, match="got none"):
        bind({})


def test_other_names_see_nothing() -> None:
    whole = bind({"a": torch.ones(8)})
    assert float(unbind(whole, ["b"], 8).norm()) < 0.5 * 8**0.5


def test_a_model_reads_the_space_it_was_taught(folder, pico) -> None:
    space = load_universal(folder / "universal.safetensors")
    llama = open_model(pico("llama"))
    read = places(llama, space.texts, fit_reader(llama, space))
    assert read.shape == (len(MANY), 8)
    right = torch.cosine_similarity(read, space.coordinates, dim=1).mean()
    wrong = torch.cosine_similarity(read, space.coordinates.roll(7, 0), dim=1).mean()
    assert float(right) > 0.5 > 0.3 > float(wrong)
    turn = torch.linalg.qr(torch.randn(llama.width, llama.width, generator=generator(0, "turn"))).Q
    turned = _rotated(llama, turn)
    again = places(turned, space.texts, fit_reader(turned, space))
    assert torch.allclose(again, read, atol=1e-2)


def test_too_little_makes_no_space(pico, tmp_path) -> None:
    with pytest.raises(ProbeError, match="more calibration texts"):
        fit_universal([open_model(pico("bert"))], MANY[:8], width=8)
    with pytest.raises(FingerprintError, match="got none"):
        fit_universal([], MANY)
    with pytest.raises(FingerprintError, match="is not a universal space"):
        load_universal(tmp_path / "nowhere")


def test_the_direction_of_a_label_is_where_its_texts_lie() -> None:
    draw = generator(0, "places")
    at = torch.randn(200, 6, generator=draw)
    scores = torch.stack([at[:, 0], -at[:, 0]], dim=1).sign() * 4
    found = prototypes(at, scores)
    assert float(found[0, 0]) > 0.95 and torch.allclose(found.sum(0), torch.zeros(6).double(), atol=1e-9)
    assert prototypes(at + 1, torch.zeros(200, 0)).shape == (1, 6)


def test_fingerprints_of_one_capability_agree_across_architectures(folder, pico) -> None:
    name = f"bound:{folder}"
    one, other = (
        extract(open_model(pico(kind)), PROBES, extractor=name, answers=_answers())
        for kind in ("bert", "gpt2")
    )
    flipped = extract(open_model(pico("bert")), PROBES, extractor=name, answers=_answers(SCORES.flip(1)))
    assert similarity(one, other) > 0.5 > similarity(flipped, other)
    again = extract(open_model(pico("bert")), PROBES, extractor=name, answers=_answers())
    assert torch.equal(again.vector, one.vector) and one.card.extractor.startswith("bound-")


def test_a_sum_of_capabilities_carries_both(folder, pico) -> None:
    model, name = open_model(pico("bert")), f"bound:{folder}"
    one = extract(model, PROBES, extractor=name, answers=_answers())
    other = extract(model, PROBES, extractor=name, answers=_answers(SCORES.roll(3, 0), cue="other"))
    both = fuse([one, other]).vector[0]
    words = [*_answers().words, *_answers(cue="other").words]
    for single, rows in ((one, slice(0, 2)), (other, slice(2, 4))):
        alone = unbind(single.vector[0], words, 8)[rows]
        assert (
            float(torch.cosine_similarity(unbind(both, words, 8)[rows].flatten(), alone.flatten(), dim=0))
            > 0.999
        )


def test_a_lora_written_otherwise_has_the_same_fingerprint(folder, pico) -> None:
    base = open_model(pico("llama"))
    draw, turn = generator(0, "factors"), torch.tensor([[2.0, 1.0], [0.5, -1.0]])
    one, other = {}, {}
    for module in lora_modules(base):
        out, inner = weight_of(base, module).shape
        a, b = 0.1 * torch.randn(2, inner, generator=draw), 0.1 * torch.randn(out, 2, generator=draw)
        one[module], other[module] = (a, b), (turn @ a, b @ torch.linalg.inv(turn))
    experts = [replace(attach(base, factors), name="expert") for factors in (one, other)]
    for name in ("pca", f"bound:{folder}"):
        found = [
            extract(each, PROBES, base=base, extractor=name, answers=_answers()).vector for each in experts
        ]
        assert torch.allclose(found[0], found[1], atol=1e-3)


def test_answers_are_needed_and_checked(folder, pico) -> None:
    with pytest.raises(FingerprintError, match="was given no answers"):
        extract(open_model(pico("bert")), PROBES, extractor=f"bound:{folder}")
    with pytest.raises(FingerprintError, match="one column for each of 2 labels"):
        _answers(torch.zeros(4, 3))
    with pytest.raises(FingerprintError, match="is not a universal space"):
        open_extractor("bound:nowhere")
