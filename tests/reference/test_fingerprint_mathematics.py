"""Slow, obvious float64 versions written from the papers, against the code that is used."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import scipy.stats
import torch

from tests.made_fingerprints import made
from umaf.activations import relative
from umaf.extraction import similarity
from umaf.fusion import spherical
from umaf.seeds import generator
from umaf.tensors import cka, procrustes, ridge, truncate_weighted, whitener


def _noise(*shape: int, name: str = "x") -> torch.Tensor:
    return torch.randn(*shape, generator=generator(0, "reference", name), dtype=torch.float64)


def test_relative_representation_moschella_equation_1() -> None:
    rows, anchors = _noise(2, 3, 7), _noise(2, 5, 7, name="anchors")
    expected = np.zeros((2, 3, 5))
    for layer in range(2):
        mean = [sum(float(anchors[layer, a, h]) for a in range(5)) / 5 for h in range(7)]
        for text in range(3):
            for anchor in range(5):
                x = [float(rows[layer, text, h]) - mean[h] for h in range(7)]
                a = [float(anchors[layer, anchor, h]) - mean[h] for h in range(7)]
                dot = sum(p * q for p, q in zip(x, a, strict=True))
                expected[layer, text, anchor] = dot / math.sqrt(sum(p * p for p in x) * sum(q * q for q in a))
    assert np.allclose(relative(rows, anchors).numpy(), expected, atol=1e-6)


def test_ridge_by_stacked_least_squares() -> None:
    x, y = _noise(9, 14), _noise(9, 3, name="y")
    penalty = 0.2 * float((x**2).sum()) / 14
    rows = np.vstack([x.numpy(), math.sqrt(penalty) * np.eye(14)])
    expected = np.linalg.lstsq(rows, np.vstack([y.numpy(), np.zeros((14, 3))]), rcond=None)[0]
    assert np.allclose(ridge(x, y, strength=0.2).numpy(), expected, atol=1e-9)


def test_procrustes_by_scipy() -> None:
    x, y = _noise(20, 6), _noise(20, 6, name="y")
    expected, total = scipy.linalg.orthogonal_procrustes(x.numpy(), y.numpy())
    found = procrustes(x, y, scaled=True)
    assert np.allclose(found.matrix.numpy(), expected, atol=1e-9)
    assert found.scale == pytest.approx(total / float((x**2).sum()))


def test_cka_from_centred_grams_and_song_equation_5() -> None:
    x, y = _noise(8, 5), _noise(8, 3, name="y")
    n = 8
    centre = np.eye(n) - np.ones((n, n)) / n
    gram_x, gram_y = (x @ x.T).numpy(), (y @ y.T).numpy()

    def plain(k: np.ndarray, m: np.ndarray) -> float:
        return float(np.trace(k @ centre @ m @ centre))

    def song(k: np.ndarray, m: np.ndarray) -> float:
        k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
        one = np.ones(n)
        middle = one @ k @ one * (one @ m @ one) / ((n - 1) * (n - 2))
        return float((np.trace(k @ m) + middle - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3)))

    for unbiased, hsic in ((False, plain), (True, song)):
        expected = hsic(gram_x, gram_y) / math.sqrt(hsic(gram_x, gram_x) * hsic(gram_y, gram_y))
        assert cka(x, y, unbiased=unbiased) == pytest.approx(expected, abs=1e-9)


def test_weighted_truncation_by_reduced_rank_regression() -> None:
    """The best rank 2 fit of W to its own outputs projects them on their main directions."""
    w, x = _noise(5, 7), _noise(60, 7, name="inputs") * torch.arange(1.0, 8)
    outputs = (x @ w.T).numpy()
    _, _, main = np.linalg.svd(outputs, full_matrices=False)
    expected = main[:2].T @ main[:2] @ w.numpy()
    a, b = truncate_weighted(w, x.T @ x / 60, 2, damping=1e-12)
    assert np.allclose((b @ a).numpy(), expected, atol=1e-5)


def test_whitening_by_the_inverse_root_of_the_shrunk_covariance() -> None:
    for points in (30, 4):
        x, y = _noise(points, 6), _noise(3, 6, name="y")
        covariance = np.cov(x.numpy().T, bias=True)
        shrunk = 0.7 * covariance + 0.3 * np.trace(covariance) / 6 * np.eye(6)
        expected = (y - x.mean(0)).numpy() @ np.linalg.inv(scipy.linalg.sqrtm(shrunk)).real
        assert np.allclose(whitener(x, shrinkage=0.3)(y).numpy(), expected, atol=1e-8)


def test_metrics_by_scipy() -> None:
    one, two = made(1), made(2)
    two = two.with_vector(two.vector.mul(30).round().div(30))  # ties
    x, y = one.vector[0].double().numpy(), two.vector[0].double().numpy()
    assert similarity(one, two, "pearson") == pytest.approx(float(scipy.stats.pearsonr(x, y)[0]), abs=1e-9)
    assert similarity(one, two, "spearman") == pytest.approx(float(scipy.stats.spearmanr(x, y)[0]), abs=1e-9)
    cosine = float(x @ y) / math.sqrt(float(x @ x) * float(y @ y))
    assert similarity(one, two) == pytest.approx(cosine, abs=1e-9)
    p, q = (np.exp(math.sqrt(512) * v) / np.exp(math.sqrt(512) * v).sum() for v in (x, y))
    both = scipy.stats.entropy(p, q) + scipy.stats.entropy(q, p)
    assert similarity(one, two, "kl") == pytest.approx(float(both) / 2, abs=1e-9)


def test_spherical_mean_is_where_the_squared_angles_are_least() -> None:
    points = torch.nn.functional.normalize(_noise(4, 3) + torch.tensor([3.0, 0, 0]), dim=1)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)

    def cost(mean: np.ndarray) -> float:
        unit = mean / np.linalg.norm(mean)
        return float((weights.numpy() * np.arccos(np.clip(points.numpy() @ unit, -1, 1)) ** 2).sum())

    found = spherical(points, weights).numpy()
    best = scipy.optimize.minimize(
        cost, np.array([1.0, 0.1, 0.1]), method="Nelder-Mead", options={"xatol": 1e-9}
    )
    assert np.allclose(found, best.x / np.linalg.norm(best.x), atol=1e-5)
