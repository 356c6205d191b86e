"""The algebra of low-rank deltas against dense float64 matrices."""

from __future__ import annotations

import pytest
import torch

from umaf.deltas import LowRank, add, inner, joint, norm, nothing, svd, truncate
from umaf.errors import NumericalError


def some(seed, out, width, rank, *batch, dtype=torch.float64):
    made = torch.Generator().manual_seed(seed)
    a = torch.randn(*batch, rank, width, generator=made, dtype=torch.float64)
    b = torch.randn(*batch, out, rank, generator=made, dtype=torch.float64)
    return LowRank(a.to(dtype), b.to(dtype))


SIZES = [((7, 11), ()), ((11, 7), ()), ((5, 5), (3,)), ((2, 9), ())]  # ranks go beyond the short side too


@pytest.fixture(params=SIZES, ids=str)
def three(request):
    (out, width), batch = request.param
    return [some(seed, out, width, rank, *batch) for seed, rank in enumerate((1, 3, 4))]


def test_a_sum_is_the_dense_sum(three):
    weights = [0.7, -0.5, 2.0]
    dense = sum(weight * part.dense() for weight, part in zip(weights, three, strict=True))
    found = add(three, weights)
    assert found.rank == 8
    assert torch.allclose(found.dense(), dense, atol=1e-13)


def test_inner_products_and_norms_are_the_dense_ones(three):
    for x in three:
        assert torch.allclose(norm(x), torch.linalg.matrix_norm(x.dense()), rtol=1e-13)
        for y in three:
            assert torch.allclose(inner(x, y), (x.dense() * y.dense()).sum((-2, -1)), atol=1e-12)


def test_a_norm_survives_cancellation():
    x = some(0, 40, 30, 4)
    same = add([x, x], [1.0, -1.0 + 1e-9])
    assert float(norm(same) / norm(x)) == pytest.approx(1e-9, rel=1e-5)


def test_singular_values_are_the_dense_ones(three):
    for x in three:
        u, s, vt = svd(x)
        dense = torch.linalg.svdvals(x.dense())[..., : s.shape[-1]]
        assert torch.allclose(s, dense, atol=1e-12)
        assert torch.allclose(u * s.unsqueeze(-2) @ vt, x.dense(), atol=1e-12)
        eye = torch.eye(s.shape[-1], dtype=torch.float64).expand(*s.shape, -1)
        assert torch.allclose(u.mT @ u, eye, atol=1e-12) and torch.allclose(vt @ vt.mT, eye, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_truncation_is_eckart_and_youngs(rank):
    x = some(3, 12, 9, 4)
    small, error = truncate(x, rank)
    s = torch.linalg.svdvals(x.dense())
    assert small.rank == rank
    assert error == pytest.approx(float((s[rank:].square().sum() / s.square().sum()).sqrt()), abs=1e-12)
    off = torch.linalg.matrix_norm(small.dense() - x.dense()) / torch.linalg.matrix_norm(x.dense())
    assert error == pytest.approx(float(off), abs=1e-12)
    assert torch.allclose(small.a @ small.a.mT, small.b.mT @ small.b, atol=1e-10)  # even shares


def test_auto_rank_drops_rounding_only():
    x = some(4, 20, 30, 3)
    twice, error = truncate(add([x, x]))
    assert twice.rank == 3 and error < 1e-14
    assert torch.allclose(twice.dense(), 2 * x.dense(), atol=1e-12)


def test_auto_rank_holds_the_energy_that_is_asked_for():
    x = LowRank(torch.diag(torch.tensor([4.0, 2.0, 1.0, 0.5], dtype=torch.float64)), torch.eye(4).double())
    ranks = [truncate(x, energy=energy)[0].rank for energy in (0.5, 0.9, 0.95, 1.0)]
    assert ranks == [1, 2, 3, 4]
    small, error = truncate(x, energy=0.9)
    assert error**2 <= 0.1 and small.rank == 2
    assert truncate(x, 1, energy=0.99)[0].rank == 1


def test_joint_cores_are_isometric(three):
    cores, left, right = joint(three)
    for x, core in zip(three, cores, strict=True):
        assert torch.allclose(left @ core @ right, x.dense(), atol=1e-12)
    eye = torch.eye(left.shape[-1], dtype=torch.float64).expand(*left.shape[:-2], -1, -1)
    assert torch.allclose(left.mT @ left, eye, atol=1e-12)
    products = (cores[0] * cores[1]).sum((-2, -1))
    assert torch.allclose(products, inner(three[0], three[1]), atol=1e-12)


def test_nothing_adds_nothing():
    x, zero = some(5, 6, 4, 2), nothing((6, 4), dtype=torch.float64)
    assert torch.equal(add([zero, x]).dense(), x.dense())
    assert float(norm(zero)) == 0 and float(inner(zero, x)) == 0
    small, error = truncate(zero)
    assert small.shape == (6, 4) and not small.dense().any() and error == 0
    cores, left, right = joint([zero, x])
    assert not cores[0].any() and torch.allclose(left @ cores[1] @ right, x.dense(), atol=1e-12)


def test_float32_factors_are_right_to_float32():
    x = some(6, 200, 150, 8, dtype=torch.float32)
    small, error = truncate(add([x, x], [0.5, 0.5]), 8)
    off = torch.linalg.matrix_norm(small.dense().double() - x.b.double() @ x.a.double())
    assert float(off / torch.linalg.matrix_norm(x.dense().double())) < 2e-6
    assert error < 1e-6


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: LowRank(x.a, x.b[:, :1]),
        lambda x: add([]),
        lambda x: add([x, nothing((3, 3))]),
        lambda x: add([x], [1.0, 2.0]),
        lambda x: truncate(x, 0),
        lambda x: truncate(x, energy=1.5),
        lambda x: svd(LowRank(x.a * float("nan"), x.b)),
    ],
)
def test_mistakes_are_told_in_one_sentence(wrong):
    with pytest.raises(NumericalError) as told:
        wrong(some(0, 6, 5, 2))
    assert str(told.value).endswith(".") and "\n" not in str(told.value)
