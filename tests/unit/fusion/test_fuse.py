"""Fusion: weights of every kind, the sphere's hard cases, and cards that name the sources."""

from __future__ import annotations

import math

import pytest
import torch

from tests.made_fingerprints import made
from umaf.errors import ConfigError, FingerprintError, RegistryError
from umaf.extraction import similarity
from umaf.fusion import check_weights, fuse, spherical, weights_from_similarity


def test_the_card_names_sources_and_weights() -> None:
    card = fuse([made(1), made(2, probes="d" * 64)], [3, -1]).card
    assert card.model == "weighted(made-1, made-2)" and card.sources == ("made-1", "made-2")
    assert card.weights == (0.75, -0.25) and card.probes == "mixed"
    assert fuse([made(1), made(2)]).card.probes == made(1).card.probes


def test_weights_are_shares() -> None:
    one, two = made(1), made(2)
    expected = 0.75 * one.vector + 0.25 * two.vector
    for weights in ([3, 1], [0.75, 0.25], [3e300, 1e300], [3e-300, 1e-300]):
        assert torch.allclose(fuse([one, two], weights).vector, expected, atol=1e-6)
    assert torch.allclose(fuse([one, two]).vector, (one.vector + two.vector) / 2, atol=1e-6)


def test_a_negative_weight_subtracts() -> None:
    one, two = made(1), made(2)
    assert torch.allclose(fuse([one, two], [1, -1]).vector, (one.vector - two.vector) / 2, atol=1e-6)
    found = fuse([one, two], [1, -1], method="spherical")
    assert similarity(found, one) > 0.5 > -0.5 > similarity(found, two)


@pytest.mark.parametrize("method", ["weighted", "spherical"])
def test_nonsense_weights_are_refused(method: str) -> None:
    several = [made(1), made(2)]
    with pytest.raises(FingerprintError, match="all weights are 0"):
        fuse(several, [0, 0.0], method=method)
    for weights in ([1], [1, 2, 3], []):
        with pytest.raises(FingerprintError, match=f"2 fingerprints were given with {len(weights)} weights"):
            fuse(several, weights, method=method)
    with pytest.raises(FingerprintError, match="finite"):
        fuse(several, [math.nan, 1], method=method)
    with pytest.raises(FingerprintError, match="got none"):
        fuse([], method=method)
    with pytest.raises(FingerprintError, match="different extractor"):
        fuse([made(1), made(2, extractor="pca-new")], method=method)
    assert check_weights(None, 4) == (0.25,) * 4


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(RegistryError, match="spherical"):
        fuse([made(1)], method="spheric")


def test_two_points_meet_on_the_arc_between_them() -> None:
    points = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    angle = torch.tensor(0.3 * math.pi / 2, dtype=torch.float64)
    found = spherical(points, torch.tensor([0.7, 0.3], dtype=torch.float64))
    assert torch.allclose(found, torch.stack([angle.cos(), angle.sin()]), atol=1e-9)


def test_opposite_points() -> None:
    one = made(1)
    back = one.with_vector(-one.vector)
    with pytest.raises(FingerprintError, match="cancel"):
        fuse([one, back], method="spherical")
    with pytest.raises(FingerprintError, match="cancel"):
        fuse([one, one], [1, -1], method="spherical")
    assert similarity(fuse([one, back], [0.7, 0.3], method="spherical"), one) == pytest.approx(1.0)
    assert not fuse([one, back]).vector.any()


def test_no_change_shortens_and_does_not_turn() -> None:
    one = made(1)
    nothing = one.with_vector(torch.zeros(1, 512), unchanged=True)
    for method in ("weighted", "spherical"):
        assert torch.allclose(fuse([one, nothing], method=method).vector, one.vector / 2, atol=1e-6)
        none = fuse([nothing, nothing], method=method)
        assert not none.vector.any() and none.card.unchanged


def test_weights_follow_similarity_to_what_is_wanted() -> None:
    several = [made(1), made(2), made(3)]
    near = weights_from_similarity(several, made(2), temperature=0.01)
    assert sum(near) == pytest.approx(1.0) and near[1] > 0.99
    even = weights_from_similarity(several, made(2), temperature=1e6)
    assert even == pytest.approx([1 / 3] * 3, abs=1e-4)
    divergence = weights_from_similarity(several, made(2), metric="kl")
    assert max(divergence) == divergence[1]
    for temperature in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="temperature"):
            weights_from_similarity(several, made(2), temperature=temperature)
    with pytest.raises(FingerprintError, match="got none"):
        weights_from_similarity([], made(2))
