"""The description and its projection: fixed, linear where promised, kept in a file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from umaf.errors import FingerprintError, NumericalError, OutputError
from umaf.extraction import Inputs, describe, fit_pca, load_pca
from umaf.extraction.describe import DESCRIPTION, _places, blocks
from umaf.extraction.pca import fixed_pca
from umaf.seeds import generator

DEPTHS, ANCHORS = 2, 24


def _inputs(name: str, probes: int = 20, shift: float = 0.1) -> Inputs:
    draw = generator(0, name)
    base = torch.rand(DEPTHS, probes, ANCHORS, generator=draw) - 0.5
    moved = base + shift * (torch.rand(DEPTHS, probes, ANCHORS, generator=draw) - 0.5)
    half = torch.rand(DEPTHS, ANCHORS, ANCHORS, generator=draw) - 0.5
    gram = half + half.transpose(1, 2)
    return Inputs(moved, gram * (1 + shift), base, gram, (0.5, 1.0), "centred")


def test_the_fixed_projection_never_changes() -> None:
    """A change here makes every stored fingerprint another space: raise VERSION in describe.py with it."""
    assert fixed_pca().version == "pca-fixed-2db1f42083d7"
    drawn = repr([part.tolist() for part in _places("0 mean", 256)])
    assert hashlib.sha256(drawn.encode()).hexdigest()[:16] == "b84b45e960510fa2"


def test_rows_are_orthonormal() -> None:
    rows = torch.stack([describe(_inputs(str(n))) for n in range(6)])
    for pca in (fixed_pca(), fit_pca(rows)):
        identity = pca.components.double() @ pca.components.double().T
        assert torch.allclose(identity, torch.eye(512, dtype=torch.float64), atol=1e-5)


def test_no_change_is_exactly_nothing() -> None:
    same = _inputs("same", shift=0.0)
    assert not describe(same).any() and not fixed_pca()(same).any()


def test_the_fold_keeps_cosines() -> None:
    one, two = _inputs("a"), _inputs("b")

    def full(inputs: Inputs) -> torch.Tensor:
        assert inputs.base_coordinates is not None and inputs.base_gram is not None
        parts = []
        for depth in range(DEPTHS):
            own = blocks(inputs.coordinates[depth], inputs.gram[depth])
            base = blocks(inputs.base_coordinates[depth], inputs.base_gram[depth])
            parts += [(own[name] - base[name]) / own[name].numel() ** 0.5 for name in own]
        return torch.cat(parts)

    cosine = torch.nn.functional.cosine_similarity
    mixed = full(one) + full(two)
    expected = cosine(mixed, full(one), dim=0)
    found = cosine(describe(one) + describe(two), describe(one), dim=0)
    assert abs(float(expected - found)) < 0.06
    assert describe(one).norm().item() == pytest.approx(full(one).norm().item(), rel=0.1)


def test_fitted_directions_come_first_and_lose_nothing(tmp_path: Path) -> None:
    rows = torch.stack([describe(_inputs(str(n))) for n in range(5)] + [torch.zeros(DESCRIPTION).double()])
    pca = fit_pca(rows, keep=3)
    assert pca.fitted == 3 and pca.version.startswith("pca-fitted-")
    whole = fit_pca(rows)
    assert whole.fitted == 5
    kept = (whole.components[:5].double() @ rows.T).norm(dim=0)
    assert torch.allclose(kept, rows.norm(dim=1), rtol=1e-5)
    file = pca.save(tmp_path / "pca.safetensors")
    again = load_pca(file)
    assert again.version == pca.version and torch.equal(again.components, pca.components)
    with pytest.raises(OutputError):
        pca.save(file)


def test_what_cannot_be_fitted_or_read_is_refused(tmp_path: Path) -> None:
    for rows in (torch.zeros(2, DESCRIPTION), torch.ones(2, 7), torch.full((2, DESCRIPTION), float("nan"))):
        with pytest.raises(NumericalError):
            fit_pca(rows)
    with pytest.raises(NumericalError):
        fit_pca(torch.ones(2, DESCRIPTION), keep=0)
    (tmp_path / "x").write_bytes(b"not safetensors")
    for name in ("x", "none"):
        with pytest.raises(FingerprintError, match="not a PCA"):
            load_pca(tmp_path / name)
