"""The whole first stage: invariance, identity, every architecture, and what it refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.conftest import ARCHITECTURES
from umaf.activations import ANCHORS_HASH, check_probes
from umaf.errors import FingerprintError, ModelError, NumericalError, ProbeError, RegistryError
from umaf.extraction import extract, save_trained, similarity, untrained
from umaf.models import Model, open_model
from umaf.seeds import generator

Pico = Callable[[str], Path]
ExpertOf = Callable[..., Model]


def _turned(model: Model, turn: torch.Tensor, scale: float) -> Model:
    """Return the same function on a rotated and scaled residual stream; RMS norms do not notice."""
    net = copy.deepcopy(model.net)
    turn = turn.to(torch.float64)

    def write(weight: torch.Tensor, value: torch.Tensor) -> None:
        weight.copy_(value.to(weight.dtype))

    with torch.no_grad():
        body = net.base_model
        head = net.lm_head.weight.double().clone()
        norm = body.norm.weight
        write(net.lm_head.weight, head * norm.double() @ turn)
        norm.fill_(1.0)
        write(body.embed_tokens.weight, scale * body.embed_tokens.weight.double() @ turn)
        for layer in body.layers:
            attention, mlp = layer.self_attn, layer.mlp
            for norm, readers in (
                (layer.input_layernorm, (attention.q_proj, attention.k_proj, attention.v_proj)),
                (layer.post_attention_layernorm, (mlp.gate_proj, mlp.up_proj)),
            ):
                for reader in readers:
                    write(reader.weight, reader.weight.double() * norm.weight.double() @ turn)
                norm.weight.fill_(1.0)
            for writer in (attention.o_proj, mlp.down_proj):
                write(writer.weight, scale * turn.T @ writer.weight.double())
    return replace(model, net=net)


def _turns(width: int) -> dict[str, tuple[torch.Tensor, float]]:
    draw = generator(0, "turn")
    rotation = torch.linalg.qr(torch.randn(width, width, generator=draw, dtype=torch.float64)).Q
    permutation = torch.eye(width)[torch.randperm(width, generator=draw)]
    return {
        "rotation": (rotation, 1.0),
        "permutation": (permutation, 1.0),
        "scaling": (torch.eye(width), 7.0),
        "all": (rotation @ permutation.double(), 3.0),
    }


@pytest.mark.parametrize("kind", ["rotation", "permutation", "scaling", "all"])
@pytest.mark.parametrize("normalisation", ["centred", "l2", "whitened"])
def test_a_turned_hidden_space_has_the_same_fingerprint(
    kind: str, normalisation: str, llama: Model, expert_of: ExpertOf, probes: list[str]
) -> None:
    base, expert = llama, expert_of(llama)
    turn, scale = _turns(llama.width)[kind]
    turned = _turned(expert, turn, scale)
    alone = [extract(model, probes, normalisation=normalisation).vector for model in (expert, turned)]
    assert torch.allclose(*alone, rtol=0, atol=1e-5)
    both = [
        extract(one, probes, base=other, normalisation=normalisation).vector
        for one, other in ((expert, base), (turned, _turned(base, turn, scale)))
    ]
    assert torch.allclose(*both, rtol=0, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_is_a_source_and_equal_to_its_base_means_no_change(
    architecture: str, pico: Pico, expert_of: ExpertOf, probes: list[str]
) -> None:
    base = open_model(pico(architecture))
    found = extract(expert_of(base), probes, base=base)
    assert found.vector.shape == (1, 512) and found.vector.norm().item() == pytest.approx(1.0)
    assert not found.card.unchanged and found.card.strength > 0
    same = extract(open_model(pico(architecture)), probes, base=base)
    assert not same.vector.any() and same.card.unchanged and same.card.strength == 0


def test_the_card_says_where_the_numbers_come_from(
    llama: Model, expert_of: ExpertOf, probes: list[str]
) -> None:
    card = extract(expert_of(llama), check_probes(probes), base=llama, depths=(0.5, 1.0)).card
    assert (card.model, card.base, card.architecture, card.layers, card.width) == (
        "expert",
        llama.name,
        "llama",
        2,
        32,
    )
    assert (
        card.anchors == ANCHORS_HASH and card.probes == check_probes(probes).hash and card.probe_count == 16
    )
    assert card.depths == (0.5, 1.0) and card.truncated == 0 and card.extractor.startswith("pca-")


def test_the_number_and_order_of_probes_may_differ(
    llama: Model, expert_of: ExpertOf, probes: list[str]
) -> None:
    expert = expert_of(llama)
    first = extract(expert, probes, base=llama)
    assert torch.allclose(extract(expert, probes[::-1], base=llama).vector, first.vector, atol=1e-5)
    more = extract(expert, [*probes, *(f"{text} again" for text in probes)], base=llama)
    other = extract(expert_of(llama, name="other"), probes, base=llama)
    assert similarity(first, more) > 0.9 > abs(similarity(first, other)) + 0.3


def test_a_base_that_is_not_the_base_is_refused(
    llama: Model, expert_of: ExpertOf, pico: Pico, probes: list[str]
) -> None:
    with pytest.raises(ModelError, match="its architecture is gpt2 and not llama"):
        extract(llama, probes, base=open_model(pico("gpt2")))
    stranger = copy.deepcopy(llama.net)
    with torch.no_grad():
        for weight in stranger.parameters():
            if weight.ndim > 1:
                weight.copy_(torch.randn(weight.shape, generator=generator(1, "stranger")))
    with pytest.raises(ModelError, match=r"nothing in common \(median cosine -?0\.0"):
        extract(llama, probes, base=replace(llama, net=stranger, name="stranger"))
    config = copy.deepcopy(llama.config)
    for name, value, says in (
        ("vocab_size", 99, "vocabulary is 99"),
        ("hidden_size", 64, "width is 64"),
        ("num_hidden_layers", 1, "number of layers is 1"),
    ):
        other = copy.deepcopy(config)
        setattr(other, name, value)
        with pytest.raises(ModelError, match=says):
            extract(llama, probes, base=replace(llama, net=type(llama.net)(other), name="other"))
    assert expert_of(llama).config.vocab_size == config.vocab_size


def test_a_classifier_may_have_a_headless_base(pico: Pico, probes: list[str]) -> None:
    folder = pico("bert")
    expert, base = open_model(folder, head="lm"), open_model(folder, head="base")
    assert extract(expert, probes, base=base).card.unchanged


def test_bad_probes_and_weights_stop_the_run(llama: Model, expert_of: ExpertOf, probes: list[str]) -> None:
    with pytest.raises(ProbeError, match="at least 16"):
        extract(llama, probes[:15])
    with pytest.raises(ProbeError, match="number 3"):
        extract(llama, [*probes[:2], "rain " * 300, *probes[2:]])
    assert extract(llama, [*probes[:2], "rain " * 300, *probes[2:]], truncate=True).card.truncated == 1
    broken = expert_of(llama, by=float("nan"))
    for base in (None, llama):
        with pytest.raises(NumericalError, match="layer 0 of expert"):
            extract(broken, probes, base=base)
    with pytest.raises(RegistryError):
        extract(llama, probes, normalisation="none at all")


def test_a_window_too_short_for_the_anchors_is_refused(llama: Model, probes: list[str]) -> None:
    short = replace(llama, net=copy.deepcopy(llama.net))
    short.net.config.max_position_embeddings = 12
    with pytest.raises(ProbeError, match="anchor texts need more"):
        extract(short, [f"no {number}" for number in range(16)])


def test_the_trained_extractor_stands_in_for_the_closed_form(
    llama: Model, expert_of: ExpertOf, probes: list[str], tmp_path: Path
) -> None:
    save_trained(untrained(seed=3), tmp_path / "trained")
    name = f"trained:{tmp_path / 'trained'}"
    found = extract(expert_of(llama), probes, base=llama, extractor=name)
    assert found.card.extractor.startswith("trained-") and found.vector.norm().item() == pytest.approx(1.0)
    assert not extract(llama, probes, base=llama, extractor=name).vector.any()
    with pytest.raises(FingerprintError, match="different extractor"):
        similarity(found, extract(expert_of(llama), probes, base=llama))
    with pytest.raises(FingerprintError, match="reads normalisation centred"):
        extract(llama, probes, extractor=name, normalisation="l2")
    for unknown in ("pca2", "trained", f"trained:{tmp_path}", f"pca:{tmp_path / 'none'}"):
        with pytest.raises(FingerprintError):
            extract(llama, probes, extractor=unknown)
