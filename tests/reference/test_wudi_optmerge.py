"""WUDI and OptMerge against loops in float64, the differential equation, and the published descent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from tests.reference.spectral import close, made_deltas, run
from umaf.merging.methods.optmerge import optmerge
from umaf.merging.methods.wudi import wudi


def problem(targets, rows, sizes, norm):
    """Give C and D of the stationary equation X C = D."""
    width = targets[0].shape[1]
    moment, right = np.zeros((width, width)), np.zeros_like(targets[0])
    for target, row, size in zip(targets, rows, sizes, strict=True):
        if size > 0:
            weight = 1 / size**2 if norm == "squared" else 1 / size
            moment += weight * row.T @ row
            right += weight * target @ row.T @ row
    return moment, right


def solve(start, moment, right, filter, time, keep):
    """Filter direction by direction."""
    values, vectors = np.linalg.eigh(moment)
    values, vectors = values[::-1], vectors[:, ::-1]
    count = int(np.ceil(keep * len(values)))
    values = np.where(values > 1e-11 * max(values[0], 1e-30), values, 0)
    if filter == "participation":
        count = min(count, int(np.ceil(np.sqrt(values).sum() ** 2 / max(values.sum(), 1e-30) - 1e-9)))
    found = start.copy()
    for place in range(count):
        value, vector = values[place], vectors[:, place]
        if value > 0:
            share = 1 - np.exp(-value * time) if filter == "exp" else 1.0
            found += share * np.outer(right @ vector / value - start @ vector, vector)
    return found


def start_of(stack, start):
    return {"sum": stack.sum(0), "mean": stack.mean(0), "zero": np.zeros_like(stack[0])}[start]


def clear(moment, count):
    """Tell whether no eigenvalue sits at a threshold or at the last place that is kept."""
    values = np.linalg.eigvalsh(moment)[::-1]
    if values[0] == 0:
        return True
    values = values / values[0]
    apart = count >= len(values) or values[count] < 1e-13 or values[count - 1] > 1.02 * values[count]
    return apart and not ((values > 1e-14) & (values < 1e-7)).any()


@settings(max_examples=80, deadline=None)
@given(
    made_deltas(),
    st.sampled_from(["exp", "none", "participation"]),
    st.sampled_from([1.0, 0.5]),
    st.sampled_from(["sum", "mean", "zero"]),
    st.sampled_from(["squared", "plain"]),
)
def test_wudi_is_the_filter_of_the_paper(stack, filter, keep, start, norm):
    sizes = np.linalg.norm(stack, axis=(1, 2))
    moment, right = problem(stack, stack, sizes, norm)
    values = np.linalg.eigvalsh(moment).clip(0)
    ratio = np.sqrt(values).sum() ** 2 / max(values.sum(), 1e-30)
    count = int(np.ceil(keep * stack.shape[2]))
    if filter == "participation":
        assume(abs(ratio - round(ratio)) > 1e-3 or stack.shape[0] == 1)
        count = max(1, min(count, int(np.ceil(ratio - 1e-9))))
    assume(clear(moment, count))
    wanted = solve(start_of(stack, start), moment, right, filter, 300.0, keep)
    found = run(wudi, stack, filter=filter, keep=keep, start=start, norm=norm)
    close(found, wanted, np.linalg.norm(stack), tolerance=1e-4)


def test_the_filter_is_the_gradient_flow():
    rng = np.random.default_rng(0)
    stack = rng.normal(size=(3, 4, 5))
    moment, right = problem(stack, stack, np.linalg.norm(stack, axis=(1, 2)), "squared")
    flow = solve_ivp(
        lambda _, x: (right - x.reshape(4, 5) @ moment).ravel(),
        (0, 7.0),
        stack.sum(0).ravel(),
        rtol=1e-10,
        atol=1e-12,
    )
    close(run(wudi, stack, time=7.0), flow.y[:, -1].reshape(4, 5))


def test_the_exact_solution_leaves_no_gradient_and_is_a_minimum():
    rng = np.random.default_rng(1)
    stack = rng.normal(size=(3, 6, 5))
    sizes = np.linalg.norm(stack, axis=(1, 2))
    found = run(wudi, stack, filter="none")
    moment, right = problem(stack, stack, sizes, "squared")
    assert np.abs(found @ moment - right).max() < 1e-5


@settings(max_examples=20, deadline=None)
@given(made_deltas(most=1), st.sampled_from(["exp", "none", "participation"]))
def test_one_expert_comes_back(stack, filter):
    close(run(wudi, stack, filter=filter), stack[0])
    close(run(optmerge, stack, filter=filter), stack[0], tolerance=1e-4)


def test_copies_of_one_expert_come_back_from_the_mean_and_from_the_exact_solution():
    stack = np.repeat(np.random.default_rng(2).normal(size=(1, 6, 5)), 3, axis=0)
    close(run(wudi, stack, start="mean"), stack[0])
    close(run(wudi, stack, filter="none"), stack[0])


def autograd(start, targets, rows, sizes, rule, steps, rate, norm):
    """Descend the loss as it is written in the paper."""
    found = torch.tensor(start, requires_grad=True)
    optimiser = (
        torch.optim.Adam([found], lr=rate)
        if rule == "adam"
        else torch.optim.SGD([found], lr=rate, momentum=0.9)
    )
    for _ in range(steps):
        optimiser.zero_grad()
        loss = torch.zeros((), dtype=torch.float64)
        for target, row, size in zip(targets, rows, sizes, strict=True):
            product = (found - torch.tensor(target)) @ torch.tensor(row).T
            loss = loss + product.square().sum() / (size**2 if norm == "squared" else size)
        loss.backward()
        optimiser.step()
    return found.detach().numpy()


@pytest.mark.parametrize(("rule", "rate"), [("adam", 1e-3), ("sgd", 1e-3)])
@pytest.mark.parametrize("norm", ["squared", "plain"])
def test_the_descent_is_the_published_one(rule, rate, norm):
    stack = np.random.default_rng(3).normal(size=(3, 6, 5)).astype(np.float32).astype(np.float64)
    sizes = np.linalg.norm(stack, axis=(1, 2))
    wanted = autograd(stack.sum(0), stack, stack, sizes, rule, 40, rate, norm)
    close(run(wudi, stack, solver=rule, rate=rate, steps=40, norm=norm), wanted)


def truncated(matrix, count):
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    return left[:, :count], values[:count], right[:count]


def parts_of_optmerge(stack, experts, rows):
    """Give targets and rows, and whether every truncation is clear."""
    models, out, width = stack.shape
    count = max(1, min(out, width) // models)
    mean, targets, bases, clean = stack.mean(0), [], [], True
    for delta in stack:
        for matrix in (delta, delta - mean):
            values = np.linalg.svd(matrix, compute_uv=False)
            if count < len(values):
                clean = clean and (values[count - 1] > 1.05 * values[count] or values[count - 1] < 1e-12)
        left, values, right = truncated(delta - mean, count)
        own = truncated(delta, count)
        targets.append(mean + left * values @ right if experts == "full" else own[0] * own[1] @ own[2])
        bases.append(own[1][:, None] * own[2] if rows == "plain" else values[:, None] * right)
    return targets, bases, clean


VARIANTS = [(experts, rows) for experts in ("full", "lora") for rows in ("plain", "centred")]


@settings(max_examples=60, deadline=None)
@given(made_deltas(zeros=False, equal=False), st.sampled_from(VARIANTS))
def test_optmerge_is_the_paper_s(stack, variant):
    experts, rows = variant
    targets, bases, clean = parts_of_optmerge(stack, experts, rows)
    moment, right = problem(targets, bases, np.linalg.norm(stack, axis=(1, 2)), "squared")
    assume(clean and clear(moment, stack.shape[2]))
    wanted = solve(start_of(stack, "sum" if experts == "full" else "mean"), moment, right, "exp", 300.0, 1.0)
    close(run(optmerge, stack, experts=experts, rows=rows), wanted, np.linalg.norm(stack), tolerance=2e-4)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("rule", ["adam", "sgd"])
def test_optmerge_descends_as_published(variant, rule):
    experts, rows = variant
    stack = np.random.default_rng(5).normal(size=(3, 7, 6)).astype(np.float32).astype(np.float64)
    targets, bases, _ = parts_of_optmerge(stack, experts, rows)
    start, sizes = start_of(stack, "sum" if experts == "full" else "mean"), np.linalg.norm(stack, axis=(1, 2))
    wanted = autograd(start, targets, bases, sizes, rule, 30, 1e-2, "squared")
    found = run(optmerge, stack, experts=experts, rows=rows, solver=rule, rate=1e-2, steps=30)
    close(found, wanted, np.linalg.norm(wanted - start), tolerance=2e-3)


@pytest.mark.parametrize("method", [wudi, optmerge])
def test_merging_cores_is_merging_the_matrices(method):
    rng = np.random.default_rng(4)
    left, _ = np.linalg.qr(rng.normal(size=(24, 9)))
    right, _ = np.linalg.qr(rng.normal(size=(15, 9)))
    cores = np.stack([rng.normal(size=(9, r)) @ rng.normal(size=(r, 9)) for r in (2, 3, 4)])
    whole = left @ cores @ right.T
    for options in ({}, {"keep": 0.3}, {"filter": "participation"}):
        found = left @ run(method, cores, shape=(24, 15), **options) @ right.T
        close(found, run(method, whole, **options), np.linalg.norm(whole), tolerance=1e-4)
