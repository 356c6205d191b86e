"""What the mathematics promises, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from umaf.errors import NumericalError
from umaf.seeds import generator
from umaf.tensors import (
    cka,
    procrustes,
    ridge,
    ridge_from_moments,
    standardise,
    truncate,
    truncate_weighted,
    whitener,
)


def _noise(*shape: int, name: str = "x") -> torch.Tensor:
    return torch.randn(*shape, generator=generator(0, name), dtype=torch.float64)


@pytest.mark.parametrize("rows", [40, 5])
def test_ridge_from_rows_and_from_moments_agree(rows: int) -> None:
    x, y = _noise(rows, 8), _noise(rows, 3, name="y")
    moments = ridge_from_moments(x.T @ x, x.T @ y, strength=0.1)
    assert torch.allclose(ridge(x, y, strength=0.1), moments, atol=1e-10)


def test_ridge_recovers_a_known_map() -> None:
    x, w = _noise(50, 6), _noise(6, 4, name="w")
    assert torch.allclose(ridge(x, x @ w, strength=0.0), w, atol=1e-9)


def test_ridge_without_penalty_takes_the_shortest_solution() -> None:
    x = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    assert torch.allclose(ridge(x.repeat(3, 1), torch.ones(3, 1, dtype=torch.float64), strength=0.0).T, x / 2)
    assert not ridge(torch.zeros(3, 2), torch.ones(3, 1)).any()


def test_ridge_scales_with_its_input() -> None:
    x, y = _noise(20, 6), _noise(20, 2, name="y")
    assert torch.allclose(ridge(1000 * x, y, strength=0.3) * 1000, ridge(x, y, strength=0.3))


def test_procrustes_finds_the_rotation_and_the_scale() -> None:
    x = _noise(30, 5)
    turn = torch.linalg.qr(_noise(5, 5, name="turn")).Q
    found = procrustes(x, 3 * x @ turn, scaled=True)
    assert torch.allclose(found.matrix, turn) and found.scale == pytest.approx(3.0)
    narrow = procrustes(x, _noise(30, 3, name="y"))
    assert torch.allclose(narrow.matrix.T @ narrow.matrix, torch.eye(3, dtype=torch.float64))


def test_cka_sees_through_rotation_and_scale_only() -> None:
    x = _noise(40, 6)
    turn = torch.linalg.qr(_noise(6, 6, name="turn")).Q
    for unbiased in (False, True):
        assert cka(x, -2 * x @ turn + 5, unbiased=unbiased) == pytest.approx(1.0)
    wide, other = _noise(12, 500), _noise(12, 500, name="y")
    assert cka(wide, other) > 0.8  # the bias that the other estimate is there to remove
    assert abs(cka(wide, other, unbiased=True)) < 0.2
    assert cka(torch.ones(5, 3) / 3, x[:5]) == 0.0


@pytest.mark.parametrize("rank", [1, 2, 9])
def test_truncation_has_the_rank_and_the_factors_asked_for(rank: int) -> None:
    matrix = _noise(5, 7)
    a, b = truncate(matrix, rank)
    assert (a.shape, b.shape) == ((rank, 7), (5, rank))
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    kept = min(rank, 5)
    assert torch.allclose(b @ a, left[:, :kept] * values[:kept] @ right[:kept])


def test_weighted_truncation_wins_where_the_activations_are() -> None:
    matrix = _noise(6, 8)
    x = _noise(200, 8, name="inputs") * torch.tensor([5.0, 3, 1, 1, 0.1, 0.1, 0.1, 0.1])
    moment = x.T @ x / len(x)

    def error(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(((matrix - b @ a) @ x.T).norm())

    assert error(*truncate_weighted(matrix, moment, 2)) < error(*truncate(matrix, 2))
    a, b = truncate_weighted(matrix, torch.zeros(8, 8, dtype=torch.float64), 6)
    assert torch.allclose(b @ a, matrix)


def test_standardise_and_whiten() -> None:
    x = _noise(300, 4) * torch.tensor([1.0, 10, 100, 0]) + 7
    flat = standardise(x)
    assert torch.allclose(flat.std(0, unbiased=False)[:3], torch.ones(3, dtype=torch.float64))
    assert not flat[:, 3].any()
    assert torch.equal(standardise(x, reference=x), flat)
    white = whitener(x[:, :3], shrinkage=1e-9)(x[:, :3])
    assert torch.allclose(white.T @ white / 300, torch.eye(3, dtype=torch.float64), atol=1e-3)
    assert torch.equal(whitener(torch.ones(3, 2))(torch.tensor([[2.0, 1.0]])), torch.tensor([[1.0, 0.0]]))


def test_what_does_not_fit_is_refused() -> None:
    x, bad = torch.ones(3, 2), torch.full((3, 2), float("nan"))
    calls = [
        lambda: ridge(x, torch.ones(2, 1)),
        lambda: ridge(x, x, strength=-1),
        lambda: ridge(bad, x),
        lambda: ridge_from_moments(x, x),
        lambda: procrustes(x, torch.ones(2, 2)),
        lambda: procrustes(bad, x),
        lambda: cka(x, torch.ones(2, 2)),
        lambda: cka(x, x, unbiased=True),
        lambda: cka(bad, x),
        lambda: truncate(x, 0),
        lambda: truncate(bad, 1),
        lambda: truncate_weighted(x, torch.eye(3), 1),
        lambda: whitener(x[:1]),
        lambda: whitener(bad),
        lambda: whitener(x, shrinkage=0),
    ]
    for call in calls:
        with pytest.raises(NumericalError):
            call()
