"""Singular triplets through Gram matrices, and the polar factor."""

from __future__ import annotations

import pytest
import torch

from umaf.errors import NumericalError
from umaf.tensors.polar import polar
from umaf.tensors.svd import gram, singular_triplets


@pytest.mark.parametrize("shape", [(7, 7), (5, 30), (30, 5), (1, 4), (4, 1), (2, 3, 6, 9)])
@pytest.mark.parametrize("method", ["gram", "svd"])
def test_triplets_give_the_matrix_back(shape, method):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = singular_triplets(matrix, method=method)
    torch.testing.assert_close(found.matrix(), matrix)
    torch.testing.assert_close(found.values, torch.linalg.svdvals(matrix))
    eye = torch.eye(found.values.shape[-1]).expand(*shape[:-2], -1, -1)
    torch.testing.assert_close(found.left.mT @ found.left, eye, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.right @ found.right.mT, eye, atol=1e-5, rtol=0)


def test_values_far_apart_are_found_as_by_a_float32_decomposition():
    generator = torch.Generator().manual_seed(1)
    left = torch.linalg.qr(torch.randn(60, 20, generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(90, 20, generator=generator, dtype=torch.float64)).Q
    values = torch.logspace(0, -4, 20, dtype=torch.float64)
    found = singular_triplets((left * values @ right.T).float()).values[:20].double()
    assert ((found - values).abs() / values).max() < 1e-3
    assert (found[:5] - values[:5]).abs().max() < 1e-6


def test_what_is_left_of_a_low_rank_is_no_direction():
    generator = torch.Generator().manual_seed(2)
    matrix = torch.randn(40, 3, generator=generator) @ torch.randn(3, 50, generator=generator)
    found = singular_triplets(matrix)
    assert (found.values > 0).sum() == 3
    assert found.left[:, 3:].abs().max() == 0 and found.right[3:].abs().max() == 0
    assert abs(float(polar(matrix).norm()) ** 2 - 3) < 1e-4


def test_zero_is_measured_against_what_cancelled():
    noise = 1e-9 * torch.randn(5, 6, generator=torch.Generator().manual_seed(3))
    assert (singular_triplets(noise).values > 0).all()
    assert (singular_triplets(noise, scale=torch.tensor(1.0)).values == 0).all()


def test_zero_matrices_have_no_directions():
    found = singular_triplets(torch.zeros(2, 3, 4))
    assert not found.values.any() and not found.left.any() and not found.right.any()


def test_none_can_be_asked_for():
    assert singular_triplets(torch.ones(3, 4), 0).left.shape == (3, 0)


def test_a_gram_matrix_is_right_beyond_one_block():
    matrix = torch.randn(300, 20, generator=torch.Generator().manual_seed(4))
    found = gram(matrix)
    torch.testing.assert_close(found, matrix.double() @ matrix.double().T, rtol=1e-12, atol=1e-12)


def test_mistakes_are_told():
    with pytest.raises(NumericalError, match="NaN or infinite"):
        singular_triplets(torch.full((2, 2), float("nan")))
    with pytest.raises(NumericalError, match="matrix"):
        singular_triplets(torch.ones(3))


@pytest.mark.parametrize("method", ["gram", "svd"])
@pytest.mark.parametrize("shape", [(140, 150), (3, 20, 30)])
def test_where_divide_and_conquer_gives_up_another_way_is_taken(monkeypatch, method, shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    values = torch.linalg.svdvals(matrix)

    def give_up(*_, **__):
        raise torch.linalg.LinAlgError("The algorithm failed to converge")

    monkeypatch.setattr(torch.linalg, "eigh", give_up)
    monkeypatch.setattr(torch.linalg, "svd", give_up)
    found = singular_triplets(matrix, method=method)
    torch.testing.assert_close(found.matrix(), matrix, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.values, values)


def test_vectors_with_many_zeros_between_them_have_a_polar_factor():
    # Low-rank experts side by side: on a fifth of such matrices MKL's float32 divide and conquer does not converge.
    places = torch.tensor([0, 1, 2, 64, 65, 66, 67])
    for seed in range(20):
        draw = torch.randn(256, 7, generator=torch.Generator().manual_seed(seed))
        matrix = torch.zeros(256, 128)
        matrix[:, places] = torch.nn.functional.normalize(draw, dim=0)
        found = polar(matrix)
        eye = torch.zeros(128, 128)
        eye[places, places] = 1
        torch.testing.assert_close(found.T @ found, eye, atol=1e-4, rtol=0)
