"""Interpolators and gates: identity before training, better than it after, and refused where they do not belong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from tests.made_fingerprints import made
from umaf.errors import FingerprintError
from umaf.extraction import Fingerprint, default_pca
from umaf.fusion import Gate, fuse, gated_weights, load_gate
from umaf.scaling import Film, Size, ends, load_film, scale
from umaf.search.cem import CrossEntropy
from umaf.search.fusion import refine_weights
from umaf.seeds import generator
from umaf.training.gate import GateSettings, train_gate
from umaf.training.interpolator import InterpolatorSettings, Pair, left_out, train_interpolator

BIG = {"architecture": "llama", "layers": 12, "width": 512, "parameters": 10**8}
SLOW = InterpolatorSettings(steps=60, rate=3e-3, look_every=20, patience=0)


def _pairs(count: int, first: int = 0) -> list[Pair]:
    """The large model shows every capability moved by the same amount in one direction: nothing linear through 0."""
    offset = functional.normalize(torch.randn(1, 512, generator=generator(0, "offset")), dim=1)
    found = []
    for at in range(first, first + count):
        small = made(100 + at)
        vector = functional.normalize(small.vector + 0.8 * offset, dim=1)
        found.append(Pair(f"c{at}", small, replace(small, vector=vector, card=replace(small.card, **BIG))))
    return found


def test_an_untrained_network_is_the_identity_and_equal_sizes_stay() -> None:
    one, other = Size("llama", 10**6, 4, 128), Size("llama", 10**8, 12, 512)
    x = made(1).vector
    network = Film("x")
    assert torch.allclose(network(x, ends(one, other)[None]), x, atol=1e-6)
    torch.nn.init.normal_(network.leave.weight, generator=generator(0, "leave"))
    assert not torch.allclose(network(x, ends(one, other)[None]), x, atol=1e-2)
    assert torch.allclose(network(x, ends(one, one)[None]), x, atol=1e-6)


def test_a_network_learns_what_sizes_change(tmp_path: Path) -> None:
    pairs, watched, unseen = _pairs(12), _pairs(3, 20), _pairs(1, 30)[0]
    network, done = train_interpolator(pairs, watched, settings=SLOW)
    assert done.best["score"] > 0.9
    file = network.save(tmp_path / "film.safetensors")
    assert load_film(file).version == network.version
    found = scale(unseen.source, unseen.target, method=f"film:{file}")
    cosine = functional.cosine_similarity
    assert float(cosine(found.vector, unseen.target.vector)) > 0.05 + float(
        cosine(unseen.source.vector, unseen.target.vector)
    )
    assert found.card.scaled_to == "llama with 12 layers of width 512"
    strange = replace(unseen.source, card=replace(unseen.source.card, extractor="other"))
    with pytest.raises(FingerprintError, match="was trained on fingerprints of"):
        scale(strange, unseen.target, method=f"film:{file}")
    with pytest.raises(FingerprintError, match="no interpolator"):
        load_film(tmp_path / "nowhere")


def test_the_network_that_ships_scales_what_the_closed_form_gives() -> None:
    strange = made(1)
    own = replace(strange, card=replace(strange.card, extractor=default_pca().version))
    large = replace(own, card=replace(own.card, **BIG))
    moved = scale(own, large, method="film").vector
    assert float(functional.cosine_similarity(moved, own.vector)) < 0.99
    assert torch.allclose(moved.norm(), own.vector.norm())
    assert torch.allclose(scale(own, own, method="film").vector, own.vector, atol=1e-6)
    with pytest.raises(FingerprintError, match="was trained on fingerprints of pca-"):
        scale(strange, large, method="film")


def test_leaving_one_out_compares_all_three() -> None:
    found = left_out(_pairs(6), settings=SLOW.model_copy(update={"steps": 30, "look_every": 10}))
    assert found.pairs == 6 and found.film > found.identity
    assert found.accepted == (found.film > max(found.identity, found.ridge))
    with pytest.raises(FingerprintError, match="three or more"):
        left_out(_pairs(2), settings=SLOW)


def _shown(count: int, first: int) -> list[tuple[str, Fingerprint]]:
    """Two models show each capability; what they have in common is weak beside a direction of their own."""
    own = functional.normalize(torch.randn(2, 512, generator=generator(1, "models")), dim=1)
    rows = []
    for at in range(first, first + count):
        for model in (0, 1):
            one = made(200 + at)
            rows.append(
                (f"c{at}", replace(one, vector=functional.normalize(one.vector + 2 * own[model], dim=1)))
            )
    return rows


def test_a_gate_learns_to_find_the_wanted_source(tmp_path: Path) -> None:
    plan = GateSettings(steps=40, rate=0.03, look_every=10, patience=0, draws=8)
    gate, done = train_gate(_shown(8, 0), _shown(4, 20), settings=plan)
    assert done.curve[0]["score"] < done.best["score"]
    file = gate.save(tmp_path / "gate.safetensors")
    assert load_gate(file).version == gate.version
    (_, wanted), (_, own), (_, other) = _shown(2, 40)[:3]
    weights = gated_weights(load_gate(file), wanted, [other, own])
    assert weights[1] > weights[0] and sum(weights) == pytest.approx(1.0)
    assert fuse([other, own], weights).card.weights == pytest.approx(tuple(weights))
    strange = replace(wanted, card=replace(wanted.card, extractor="other"))
    with pytest.raises(FingerprintError, match="was trained on fingerprints of"):
        gated_weights(gate, strange, [own])
    with pytest.raises(FingerprintError, match="no gate"):
        load_gate(tmp_path / "nowhere")
    with pytest.raises(FingerprintError, match="two models have"):
        train_gate(_shown(8, 0)[::2], _shown(4, 20), settings=plan)


def test_a_gate_keeps_what_the_user_said() -> None:
    gate = Gate(made(1).card.extractor)
    weights = gated_weights(gate, made(1), [made(1), made(2), made(3)], [0.0, 1.0, -1.0])
    assert weights[0] == 0 and weights[1] > 0 > weights[2]


def test_shots_refine_the_weights_and_never_make_them_worse() -> None:
    one, other = made(1), made(2)
    goal = fuse([one, other], [0.9, 0.1]).vector

    def score(fused: Fingerprint) -> tuple[float, ...]:
        return (-float((fused.vector - goal).norm()),)

    found = refine_weights([one, other], None, score)
    assert found.after > found.before and found.weights[0] > 0.7
    assert torch.equal(found.fused.vector, fuse([one, other], found.weights).vector)
    flat = refine_weights([one, other], [0.9, 0.1], lambda _: (0.0,), settings=CrossEntropy(iterations=1))
    assert flat.weights == pytest.approx((0.9, 0.1)) and flat.after == flat.before
