"""DOGE and KnOTS against loops in float64 written from the papers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.reference.spectral import close, decompose, made_deltas, run
from umaf.errors import ConfigError
from umaf.merging.contract import once
from umaf.merging.methods.doge import closed_subspace, doge, measure, shared_change
from umaf.merging.methods.knots import knots
from umaf.merging.running.apply import merge_states
from umaf.tensors.flow import inverse


def doge_loss(deltas, change, scales):
    """Give the published loss: row-wise inner products, squared."""
    loss = 0.0
    for delta in deltas:
        rest = delta - sum(s * (d + change) for s, d in zip(scales, deltas, strict=True))
        loss = loss + (delta * rest).sum(1).square().sum()
    return loss


def doge_reference(stack, size, subspace, steps, rate, density, projection):
    deltas = [torch.tensor(delta) for delta in stack]
    scales = [size / delta.norm() if delta.norm() > 0 else torch.zeros(()) for delta in deltas]
    shorter = min(stack.shape[1:])
    share, wanted = max(1, shorter // len(deltas)), shorter // subspace
    beside = torch.cat([torch.linalg.svd(delta, full_matrices=False)[0][:, :share] for delta in deltas], 1)
    axes = torch.linalg.svd(beside, full_matrices=False)[0][:, :wanted]
    projector = axes @ axes.T
    change = torch.zeros_like(deltas[0], requires_grad=True)
    optimiser = torch.optim.Adam([change], lr=rate)
    for _ in range(steps):
        optimiser.zero_grad()
        doge_loss(deltas, change, scales).backward()
        with torch.no_grad():
            if projection != "none":
                change.grad -= projector @ change.grad
            before = change.detach().clone()
            optimiser.step()
            if projection == "step":
                change -= projector @ (change - before)
    result = torch.zeros_like(deltas[0])
    for delta, scale in zip(deltas, scales, strict=True):
        kept = delta.numel() if density == 1 else int(density * delta.numel()) + 1
        smallest = delta.abs().flatten().sort(descending=True).values[min(kept, delta.numel()) - 1]
        result += scale * (delta + change.detach()) * (delta.abs() >= smallest)
    return result.numpy()


@pytest.mark.parametrize("projection", ["gradient", "step", "none"])
@pytest.mark.parametrize(("shape", "models"), [((12, 12), 3), ((8, 20), 2), ((25, 9), 4)])
@pytest.mark.parametrize("density", [0.3, 1.0])
def test_doge_is_the_published_descent(projection, shape, models, density):
    rng = np.random.default_rng(0)
    stack = (0.02 * rng.normal(size=(models, *shape))).astype(np.float32).astype(np.float64)
    options = {
        "size": 0.07,
        "subspace": 3,
        "steps": 60,
        "rate": 1e-4,
        "density": density,
        "projection": projection,
    }
    wanted = doge_reference(stack, **options)
    close(run(doge, stack, mask="tensor", **options), wanted, tolerance=2e-4)


def change_of(projection, steps=400):
    rng = np.random.default_rng(1)
    deltas = torch.from_numpy(0.02 * rng.normal(size=(4, 40, 24))).float()
    scales = 0.07 * inverse(torch.linalg.matrix_norm(deltas))
    closed = closed_subspace(deltas, 6)
    change = shared_change(deltas, scales, closed, steps=steps, rate=1e-4, hold=projection == "step")
    return deltas, scales, closed, change


def test_the_loss_falls():
    deltas, scales, _, change = change_of("gradient", steps=200)
    before = doge_loss(deltas.double(), torch.zeros(40, 24, dtype=torch.float64), scales.double())
    assert doge_loss(deltas.double(), change.double(), scales.double()) < 0.8 * before


def test_the_published_projection_does_not_hold_and_the_other_does():
    share = {}
    for projection in ("gradient", "step"):
        _, _, closed, change = change_of(projection)
        share[projection] = float((closed.T @ change).norm() / change.norm())
    assert share["gradient"] > 0.1
    assert share["step"] < 1e-5


def test_the_mask_of_the_whole_model_is_measured():
    one, two = torch.tensor([[[1.0, 5.0]]]), torch.tensor([[[3.0, 4.0], [2.0, 0.0]]])
    found = measure(lambda: iter([("a", one.flatten(1)), ("b", two.flatten(1))]), models=1, density=0.4)
    assert found["threshold"].tolist() == [3.0]
    merged = doge(one, size=5.0, steps=0, measured=found)
    assert merged[0, 0] == 0 and merged[0, 1] > 0
    assert measure(once(one), models=1, density=0.4)["threshold"].tolist() == [5.0]


def test_sizes_and_rates_can_follow_the_deltas():
    stack = torch.randn(3, 8, 6, generator=torch.Generator().manual_seed(4))
    options = {"size": 0.3, "size_unit": "median", "rate": 0.01, "rate_unit": "rms", "steps": 20}
    small, large = doge(stack, **options), doge(100 * stack, **options)
    torch.testing.assert_close(large, 100 * small, rtol=1e-3, atol=1e-3)


def test_zero_experts_leave_doge_finite():
    stack = torch.randn(3, 8, 6, generator=torch.Generator().manual_seed(5))
    stack[1] = 0
    assert torch.isfinite(doge(stack, steps=5)).all()
    assert not doge(torch.zeros(2, 8, 6), steps=5).any()


def ties_reference(coordinates, density):
    trimmed = []
    for one in coordinates:
        kept = min(one.size, int(density * one.size) + 1)
        trimmed.append(np.where(np.abs(one) >= np.sort(np.abs(one), axis=None)[::-1][kept - 1], one, 0))
    trimmed = np.stack(trimmed)
    sign = np.sign(trimmed.sum(0))
    majority = np.sign(sign.sum())
    sign = np.where(sign == 0, majority, sign)
    agree = (np.sign(trimmed) == sign) & (trimmed != 0)
    return (trimmed * agree).sum(0) / np.maximum(agree.sum(0), 1)


@settings(max_examples=60, deadline=None)
@given(made_deltas(), st.sampled_from([0.2, 0.5, 1.0]), st.sampled_from(["ties", "linear"]))
def test_knots_is_the_paper_s(stack, density, rule):
    beside = np.concatenate(list(stack), axis=1)
    left, values, right = decompose(beside)
    assume(len(values) < 2 or (values[:-1] > 1.01 * values[1:]).all())
    assume(len(values) == 0 or (values[-1] > 2e-5 * np.sqrt(beside.size) and values[-1] > 1e-3 * values[0]))
    wanted = np.zeros(stack.shape[1:])
    if len(values):
        coordinates = np.stack(np.split(values[:, None] * right, len(stack), axis=1))
        if rule == "ties":
            magnitudes = np.sort(np.abs(coordinates).reshape(len(stack), -1))
            assume((np.diff(magnitudes) > 1e-5 * values[0]).all())
        merged = coordinates.mean(0) if rule == "linear" else ties_reference(coordinates, density)
        wanted = left @ merged
    close(run(knots, stack, rule=rule, density=density), wanted, np.linalg.norm(stack), tolerance=1e-4)


@pytest.mark.parametrize("trim", ["model", "tensor"])
def test_knots_trims_over_all_layers_at_once_or_over_each(trim):
    draw = torch.Generator().manual_seed(3)
    sizes = {"layers.0.up.weight": (9, 5), "layers.1.up.weight": (4, 7), "layers.1.norm.weight": (6,)}
    # The second layer moves ten times as far, so that one threshold for both takes little of the first.
    step = {"layers.0.up.weight": 0.1, "layers.1.up.weight": 1.0, "layers.1.norm.weight": 0.1}
    base = {name: torch.zeros(size) for name, size in sizes.items()}
    experts = [
        {n: step[n] * torch.randn(size, generator=draw) for n, size in sizes.items()} for _ in range(3)
    ]
    found = merge_states("knots", experts, base=base, trim=trim, density=0.3)
    axes, parts = {}, {}
    for name in list(sizes)[:2]:
        stack = [one[name].double().numpy() for one in experts]
        left, values, right = decompose(np.concatenate(stack, axis=1))
        axes[name], parts[name] = left, np.stack(np.split(values[:, None] * right, 3, axis=1))
    if trim == "model":
        flat = np.concatenate([one.reshape(3, -1) for one in parts.values()], axis=1)
        merged = np.split(ties_reference(flat, 0.3), [parts["layers.0.up.weight"][0].size])
    else:
        merged = [ties_reference(one, 0.3) for one in parts.values()]
    for name, rows in zip(parts, merged, strict=True):
        wanted = axes[name] @ rows.reshape(parts[name][0].shape)
        close(found[name].double().numpy(), wanted, tolerance=1e-4)
    norm = torch.stack([one["layers.1.norm.weight"] for one in experts]).mean(0)
    torch.testing.assert_close(found["layers.1.norm.weight"], norm)


def test_knots_by_chance_is_right_on_average_before_signs_are_elected():
    one = torch.randn(1, 5, 7, generator=torch.Generator().manual_seed(6))
    generator = np.random.default_rng(0)
    draws = [knots(one, rule="dare_ties", density=0.5, generator=generator) for _ in range(600)]
    assert (torch.stack(draws).mean(0) - one[0]).norm() < 0.15 * one.norm()


def test_knots_of_equal_or_zero_experts():
    one = torch.randn(5, 7, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(knots(one.expand(3, 5, 7), density=1.0), one, atol=1e-5, rtol=1e-5)
    assert not knots(torch.zeros(2, 3, 4)).any()
    with pytest.raises(ConfigError, match="add up to 0"):
        knots(one.expand(2, 5, 7), rule="linear", weight=[1.0, -1.0])
