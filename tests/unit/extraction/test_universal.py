"""The universal space, names bound into a fingerprint, and the extractor made of both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.extraction.conftest import PROBES
from umaf.adapters import attach, lora_modules, weight_of
from umaf.errors import FingerprintError, ProbeError
from umaf.extraction import (
    Answers,
    along,
    bind,
    extract,
    fit_universal,
    load_universal,
    open_extractor,
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
    fit_universal(MANY, reader=pico("bert"), width=8).save(made / "universal.safetensors")
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


def test_what_is_usually_large_is_believed_first() -> None:
    """Where twelve vectors of 64 numbers do not fit into 512, knowing how they decay brings them back better."""
    spread = torch.linspace(0, 4, 64).neg().exp()
    rows = spread * torch.randn(12, 64, generator=generator(0, "rows"), dtype=torch.float64)
    names = [f"name {at}" for at in range(12)]
    whole = bind(dict(zip(names, rows, strict=True)))
    blind, told = (
        float(torch.cosine_similarity(unbind(whole, names, 64, spread=known), rows, dim=1).min())
        for known in (None, spread)
    )
    assert told > 0.97 > blind


def test_what_adds_up_to_nothing_needs_fewer_numbers() -> None:
    """Twelve vectors of 48 numbers do not fit, four groups of three that each add up to 0 do."""
    rows = torch.randn(4, 3, 48, generator=generator(0, "rows"), dtype=torch.float64)
    rows = (rows - rows.mean(1, keepdim=True)).reshape(12, 48)
    names = [f"name {at}" for at in range(12)]
    whole = bind(dict(zip(names, rows, strict=True)))
    groups = [names[at : at + 3] for at in range(0, 12, 3)]
    assert torch.allclose(unbind(whole, names, 48, balanced=groups), rows, atol=1e-3)
    assert not torch.allclose(unbind(whole, names, 48), rows, atol=0.1)


def test_groups_that_share_a_name_add_up_together() -> None:
    rows = torch.tensor([[1.0, 0.0], [-1.0, 2.0], [0.0, -2.0], [3.0, 3.0]]).double()
    whole = bind(dict(zip("abcd", rows, strict=True)))
    # a + b is not 0 and b + c is not: together they are; d stands alone.
    found = unbind(whole, list("abcd"), 2, balanced=[("a", "b"), ("b", "c"), ("d",)])
    assert torch.allclose(found, rows, atol=1e-4)


def test_a_space_comes_back_from_its_file_and_knows_its_reader(folder, pico, tmp_path) -> None:
    space = load_universal(folder / "universal.safetensors")
    assert space.places(MANY).shape == (len(MANY), 8) and space.depths == (0.25, 0.5, 0.75, 1.0)
    again = load_universal(space.save(tmp_path / "again.safetensors"))
    assert again.version == space.version and torch.equal(again.places(MANY[:3]), space.places(MANY[:3]))
    spread = space.places(MANY).std(0)
    assert float(spread[0]) > float(spread[-1]) > 0
    other = replace(space, reader=str(pico("gpt2")))
    with pytest.raises(FingerprintError, match="made with another"):
        other.places(MANY[:3])


def test_the_shipped_space_reads_like_texts_alike() -> None:
    space = load_universal()
    read = space.places(["book a table for two", "reserve a table for three", "the film was dull"])
    assert space.width == 63
    assert float(torch.cosine_similarity(read[0], read[1], dim=0)) > float(
        torch.cosine_similarity(read[0], read[2], dim=0)
    )


def test_too_little_makes_no_space(pico, tmp_path) -> None:
    with pytest.raises(ProbeError, match="more calibration texts"):
        fit_universal(MANY[:8], reader=pico("bert"), width=8)
    with pytest.raises(FingerprintError, match="is not a universal space"):
        load_universal(tmp_path / "nowhere")


def test_the_direction_of_a_label_is_where_its_texts_lie() -> None:
    draw = generator(0, "places")
    at = torch.randn(200, 6, generator=draw)
    scores = torch.stack([at[:, 0], -at[:, 0]], dim=1).sign() * 4
    found = prototypes(at, scores)
    assert float(found[0, 0]) > 0.95 and torch.allclose(found.sum(0), torch.zeros(7).double(), atol=1e-9)
    assert prototypes(at + 1, torch.zeros(200, 0)).shape == (1, 7)


@settings(max_examples=20, deadline=None)
@given(shift=st.floats(-2, 2), seed=st.integers(0, 99))
def test_the_constant_tells_how_frequent_a_label_is(shift: float, seed: int) -> None:
    at = torch.randn(300, 6, generator=generator(seed, "places"))
    called = (at[:, 0] > shift / 2).long()
    scores = torch.where(torch.stack([called == 0, called == 1], dim=1), 0.0, -9.0)
    found = along(prototypes(at, scores), at).argmax(1)
    right = float((found == called).float().mean())
    assert right > 0.8 and right >= float((called == called.mode().values).float().mean())
    assert torch.equal(along(prototypes(at + 5, scores), at + 5).argmax(1), found)


def test_models_that_answer_alike_have_one_fingerprint(folder, pico) -> None:
    name = f"bound:{folder}"
    one, other = (
        extract(open_model(pico(kind)), PROBES, extractor=name, answers=_answers())
        for kind in ("bert", "gpt2")
    )
    flipped = extract(open_model(pico("bert")), PROBES, extractor=name, answers=_answers(SCORES.flip(1)))
    assert torch.equal(one.vector, other.vector) and similarity(flipped, other) < -0.9
    assert one.card.extractor.startswith("bound-")


def test_a_sum_of_capabilities_carries_both(folder, pico) -> None:
    model, name = open_model(pico("bert")), f"bound:{folder}"
    one = extract(model, PROBES, extractor=name, answers=_answers())
    other = extract(model, PROBES, extractor=name, answers=_answers(SCORES.roll(3, 0), cue="other"))
    both = fuse([one, other]).vector[0]
    words = [*_answers().words, *_answers(cue="other").words]
    for single, rows in ((one, slice(0, 2)), (other, slice(2, 4))):
        alone = unbind(single.vector[0], words, 9)[rows]
        assert (
            float(torch.cosine_similarity(unbind(both, words, 9)[rows].flatten(), alone.flatten(), dim=0))
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
