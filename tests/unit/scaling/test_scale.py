"""Scaling: the identity, and a ridge that falls back to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.made_fingerprints import made
from umaf.errors import ConfigError, FingerprintError, OutputError, RegistryError
from umaf.extraction import Fingerprint
from umaf.models import open_model
from umaf.scaling import Ridge, fit_ridge, load_ridge, scale
from umaf.seeds import generator

BIG = {"architecture": "gpt2", "layers": 4, "width": 64, "parameters": 9000}


def _pairs(count: int, seed: int = 0) -> list[tuple[Fingerprint, Fingerprint]]:
    turn = torch.linalg.qr(torch.randn(512, 512, generator=generator(seed, "turn"), dtype=torch.float64)).Q
    half = torch.eye(512).double() + 0.5 * turn
    small = [made(100 + n) for n in range(count)]
    large = [(one.vector.double() @ half).float() for one in small]
    large = [vector / vector.norm() for vector in large]
    return [
        (one, replace(one, vector=vector, card=replace(one.card, **BIG)))
        for one, vector in zip(small, large, strict=True)
    ]


def test_identity_changes_the_card_alone(pico: Callable[[str], Path]) -> None:
    one = made(1)
    found = scale(one, open_model(pico("gpt2")))
    assert torch.equal(found.vector, one.vector) and found.vector is not one.vector
    assert found.card.scaled_to == "gpt2 with 2 layers of width 32"
    assert scale(one, made(2)).card.scaled_to == "llama with 2 layers of width 32"


def test_ridge_learns_the_map_and_returns_from_its_file(tmp_path: Path) -> None:
    pairs = _pairs(40)
    fitted = fit_ridge(pairs, strength=0.01)
    file = fitted.save(tmp_path / "map.safetensors")
    again = load_ridge(file)
    assert torch.equal(again.change, fitted.change) and replace(again, change=fitted.change) == fitted
    small, large = pairs[3]
    found = scale(small, large, method=f"ridge:{file}")
    assert torch.cosine_similarity(found.vector, large.vector).item() > 0.999
    assert found.vector.norm().item() == pytest.approx(1.0)
    with pytest.raises(OutputError):
        fitted.save(file)


def test_ridge_leaves_what_no_pair_shows() -> None:
    pairs = _pairs(3)
    shown = torch.cat([small.vector for small, _ in pairs])
    other = made(7).vector
    basis = torch.linalg.qr(shown.T).Q
    other = other - other @ basis @ basis.T
    other = made(7).with_vector(other / other.norm())
    fitted = fit_ridge(pairs)
    found = fitted(other, fitted.target)
    assert torch.allclose(found.float(), other.vector, atol=1e-5)
    heavy = fit_ridge(pairs, strength=1e9)
    assert torch.allclose(heavy(pairs[0][0], heavy.target).float(), pairs[0][0].vector, atol=1e-5)


def test_one_pair_moves_half_the_way() -> None:
    (pair,) = _pairs(1)
    change = fit_ridge([pair]).change
    expected = (pair[1].vector - pair[0].vector) / 2
    assert torch.allclose(pair[0].vector @ change, expected, atol=1e-5)


def test_no_change_stays_no_change() -> None:
    nothing = made(1).with_vector(torch.zeros(1, 512))
    fitted = fit_ridge(_pairs(2))
    assert not fitted(nothing, fitted.target).any()
    same = replace(nothing, card=replace(nothing.card, **BIG))
    assert not fit_ridge([(nothing, same)]).change.any()


def test_maps_for_other_sizes_are_refused(tmp_path: Path) -> None:
    pairs = _pairs(3)
    fitted: Ridge = fit_ridge(pairs)
    small, large = pairs[0]
    with pytest.raises(FingerprintError, match="scales to gpt2"):
        fitted(small, fitted.source)
    with pytest.raises(FingerprintError, match="scales from llama"):
        fitted(large, fitted.target)
    with pytest.raises(FingerprintError, match="fitted on fingerprints of pca-made"):
        fitted(replace(small, card=replace(small.card, extractor="pca-new")), fitted.target)
    with pytest.raises(FingerprintError, match="one size to one other"):
        fit_ridge([pairs[0], pairs[1][::-1]])
    with pytest.raises(FingerprintError, match="got none"):
        fit_ridge([])
    with pytest.raises(ConfigError, match="above 0"):
        fit_ridge(pairs, strength=0)
    with pytest.raises(FingerprintError, match="not a ridge"):
        scale(small, large, method=f"ridge:{tmp_path / 'none'}")
    for method in ("ridge", "identity:file"):
        with pytest.raises(ConfigError):
            scale(small, large, method=method)
    with pytest.raises(RegistryError, match="ridge"):
        scale(small, large, method="rigde")
