"""Means, arcs, model stock and their neighbours against slow float64 versions written from the formulas."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from umaf.merging.angles import gram
from umaf.merging.contract import once
from umaf.merging.methods.karcher import karcher
from umaf.merging.methods.linear import linear
from umaf.merging.methods.model_stock import model_stock
from umaf.merging.methods.multislerp import multislerp
from umaf.merging.methods.nearswap import nearswap
from umaf.merging.methods.nuslerp import nuslerp
from umaf.merging.methods.slerp import slerp
from umaf.merging.methods.task_arithmetic import task_arithmetic
from umaf.merging.registry import method_of
from umaf.merging.running.apply import merge_tensors
from umaf.seeds import generator

QUICK = settings(max_examples=25, deadline=None)
SEEDS = st.integers(0, 2**30)
MODELS = st.integers(2, 5)
SHAPES = st.sampled_from([(1,), (7,), (3, 5), (17, 129), (2, 3, 5)])
T = st.floats(0, 1)


def drawn(seed, models, shape, common):
    """Give a stack whose rows share a part, and have lengths of their own."""
    draw = generator(seed, "stack")
    rows = torch.randn(models, *shape, generator=draw) + common * torch.randn(shape, generator=draw)
    return rows * (0.5 + torch.rand(models, *[1] * len(shape), generator=draw))


def arc(first, second, t):
    first, second = first.double(), second.double()
    cosine = (first * second).sum() / (first.norm() * second.norm())
    angle = torch.arccos(cosine.clamp(-1, 1))
    if torch.sin(angle) < 1e-3:
        return (1 - t) * first + t * second
    return (torch.sin((1 - t) * angle) * first + torch.sin(t * angle) * second) / torch.sin(angle)


def close(found, expected, scale=1.0, atol=5e-6):
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=atol * scale)


@given(SEEDS, MODELS, SHAPES, st.booleans())
@QUICK
def test_sums(seed, models, shape, normalize):
    stack = drawn(seed, models, shape, 1.0)
    weight = torch.rand(models, generator=generator(seed, "weight")).add_(0.1).tolist()
    total = sum(one.double() * w for one, w in zip(stack, weight, strict=True))
    expected = total / sum(weight) if normalize else total
    close(linear(stack, weight=weight, normalize=normalize), expected)
    close(task_arithmetic(stack, weight=weight, normalize=normalize), expected)


@given(SEEDS, SHAPES, T, st.sampled_from([0.0, 1.0, 10.0, 1000.0]))
@QUICK
def test_arcs(seed, shape, t, common):
    stack = drawn(seed, 2, shape, common)
    expected = arc(*stack, t)
    scale = float(stack.abs().max())
    if torch.cosine_similarity(*stack.flatten(1).double(), dim=0) > -0.99:
        close(slerp(stack, t=t, lerp_above=1.0), expected, scale)
        close(slerp(stack, t=t), expected, scale, atol=3e-4)
        close(nuslerp(stack, weight=[1 - t, t]), expected, scale)


@given(SEEDS, T, st.booleans())
@QUICK
def test_arcs_of_vectors(seed, t, first_axis):
    stack = drawn(seed, 2, (6, 40), 1.0)
    axis = 1 if first_axis else 0
    expected = torch.stack(
        [arc(stack[0].select(axis, at), stack[1].select(axis, at), t) for at in range(stack.shape[1 + axis])],
        dim=axis,
    )
    found = nuslerp(stack, weight=[1 - t, t], nuslerp_flatten=False, nuslerp_row_wise=first_axis)
    close(found, expected, 3.0)


@given(SEEDS, MODELS, SHAPES, st.booleans())
@QUICK
def test_multislerp_with_its_tangent_step(seed, models, shape, normalize):
    # The step is taken here, and shown to be nothing.
    stack = drawn(seed, models, shape, 3.0).double()
    weight = torch.rand(models, generator=generator(seed, "weight")).add(0.1).double()
    used = weight / weight.sum() if normalize else weight
    lengths = stack.flatten(1).norm(dim=1)
    units = stack.flatten(1) / lengths[:, None]
    mean = used @ units
    if mean.norm() < 0.05 * used.sum():
        return
    middle = mean / mean.norm()
    tangent = used @ (units - (units @ middle)[:, None] * middle)
    assert tangent.norm() < 1e-12
    expected = (middle * (used @ lengths)).view(shape)
    found = multislerp(stack.float(), weight=weight.tolist(), normalize_weights=normalize)
    close(found, expected, 10.0)


def karcher_exactly(stack, weight, steps, tol):
    stack, weight = stack.double().flatten(1), torch.tensor(weight, dtype=torch.float64)
    weight = weight / weight.sum()
    lengths = stack.norm(dim=1)
    units = stack / lengths[:, None]
    point = weight @ units
    point = point / point.norm()
    for _ in range(steps):
        cosines = (units @ point).clamp(-1, 1)
        angles = torch.arccos(cosines)
        factors = torch.where(angles > 1e-7, angles / torch.sin(angles).clamp(min=1e-30), 1.0)
        step = (weight * factors) @ (units - cosines[:, None] * point)
        if step.norm() < tol:
            break
        point = torch.cos(step.norm()) * point + torch.sin(step.norm()) * step / step.norm()
        point = point / point.norm()
    return point * (weight @ lengths)


@given(SEEDS, st.integers(1, 5), st.sampled_from([(7,), (17, 129)]), st.integers(0, 12))
@QUICK
def test_karcher(seed, models, shape, steps):
    stack = drawn(seed, models, shape, 2.0)
    weight = torch.rand(models, generator=generator(seed, "weight")).add(0.1).tolist()
    expected = karcher_exactly(stack, weight, steps, 1e-5)
    mean = torch.nn.functional.normalize(stack.flatten(1).double(), dim=1).mean(0).norm()
    if mean > 0.3:
        close(karcher(stack, weight=weight, max_iter=steps).flatten(), expected, 10.0)


@given(SEEDS, SHAPES, st.floats(0, 2))
@QUICK
def test_nearswap(seed, shape, t):
    first, second = drawn(seed, 2, shape, 1.0).double()
    gap = second - first
    share = torch.where(gap == 0, 1.0, (t / gap.abs()).clamp(max=1))
    close(nearswap(torch.stack([first, second]).float(), t=t), first + share * gap)


def stock(deltas):
    rows = deltas.double().flatten(1)
    units = rows / rows.norm(dim=1, keepdim=True)
    models = len(rows)
    pairs = [units[i] @ units[j] for i in range(models) for j in range(i)]
    cosine = (sum(pairs) / len(pairs)).clamp(min=0)
    ratio = models * cosine / (1 + (models - 1) * cosine)
    return ratio * deltas.double().mean(0)


@given(SEEDS, MODELS, SHAPES, st.sampled_from([0.0, 0.5, 3.0]))
@QUICK
def test_model_stock(seed, models, shape, common):
    deltas = drawn(seed, models, shape, common)
    close(model_stock(deltas), stock(deltas))


@given(SEEDS, MODELS)
@QUICK
def test_model_stock_by_filters(seed, models):
    deltas = drawn(seed, models, (6, 9), 1.0)
    close(model_stock(deltas, filter_wise=True), torch.stack([stock(deltas[:, row]) for row in range(6)]))
    stacked = drawn(seed, models, (2, 3, 9), 1.0)
    rows = [torch.stack([stock(stacked[:, e, row]) for row in range(3)]) for e in range(2)]
    close(model_stock(stacked, filter_wise=True), torch.stack(rows))
    filters = drawn(seed, models, (4, 3, 2, 2), 1.0)
    each = torch.stack([stock(filters[:, one]) for one in range(4)])
    close(model_stock(filters, filter_wise=True), each)


@pytest.mark.parametrize("size", [1e-30, 1e-22, 1e18, 1e30])
def test_any_size(size):
    # Squares that float32 cannot hold.
    stack = drawn(3, 3, (5, 300), 1.0)
    for method in (karcher, multislerp, model_stock):
        torch.testing.assert_close(method(stack * size) / size, method(stack), rtol=1e-4, atol=1e-4)


def test_nothing_has_no_direction():
    nothing, stack = torch.zeros(2, 5), torch.stack([torch.zeros(5), torch.ones(5)])
    for method in (slerp, nuslerp, multislerp, karcher, model_stock):
        assert torch.equal(method(nothing), torch.zeros(5))
    assert torch.equal(slerp(stack, t=0.25), torch.full((5,), 0.25))
    assert torch.equal(model_stock(stack), torch.zeros(5))
    torch.testing.assert_close(karcher(stack), torch.full((5,), 0.5))
    torch.testing.assert_close(multislerp(torch.stack([torch.ones(5), -torch.ones(5)])), torch.zeros(5))


@pytest.mark.parametrize("method", ["slerp", "nuslerp", "multislerp", "karcher", "model_stock"])
def test_pieces_and_wholes_agree(method):
    # 150,001 entries are three of the engine's pieces; called by itself the method sees them at once.
    stack = drawn(5, 2, (150_001,), 1.0)
    base = torch.zeros(150_001)

    needs = method_of(method).needs
    engine = merge_tensors(method, list(stack), base=None if needs.base == "none" else base)
    torch.testing.assert_close(engine, method_of(method).function(stack), rtol=1e-6, atol=1e-7)


def test_inner_products_are_exact():

    stack = drawn(7, 4, (1_000_003,), 0.2)
    exact = stack.double() @ stack.double().T
    torch.testing.assert_close(gram(once(stack), 4), exact, rtol=0, atol=3e-8 * float(exact.max()))
