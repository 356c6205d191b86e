"""OPCM against the published recursion with square orthogonal matrices, and its state on disk against the stack."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.reference.spectral import close, made_deltas, run
from umaf.errors import CheckpointError, ConfigError, NumericalError, OutputError
from umaf.merging.continual import linear_weight, opcm_add, opcm_merged, opcm_open, opcm_start
from umaf.merging.methods.opcm import opcm, outside


def projected(delta, merged, alpha):
    """Take the published steps, in the axes of a full decomposition cut at the rank."""
    left, values, right = np.linalg.svd(merged)
    rank = int((values > 1e-9 * max(values[0], 1e-30)).sum()) if values[0] > 0 else 0
    values = values[:rank]
    above = np.cumsum(values) / values.sum() > alpha if rank else np.zeros(0, bool)
    split = rank if alpha >= 1 or not above.any() else int(np.argmax(above))
    core = left.T @ delta @ right.T
    core[np.arange(rank), np.arange(rank)] = 0
    core[:split, :split] = 0
    return left @ core @ right


def published(stacks, alpha, matrices):
    """Run equations 5 to 9 over a whole model: the factor and the rescaling at every step."""
    count = len(stacks[0])
    merged = [stack[0].copy() for stack in stacks]
    norms = [np.sqrt(sum((stack[0] ** 2).sum() for stack in stacks))]
    factor = 1.0
    for step in range(1, count):
        for place, stack in enumerate(stacks):
            new = projected(stack[step], merged[place], alpha) if matrices[place] else stack[step]
            merged[place] = factor * merged[place] + new
        norms.append(np.sqrt(sum((stack[step] ** 2).sum() for stack in stacks)))
        norm = np.sqrt(sum((one**2).sum() for one in merged))
        factor = norm / np.mean(norms) if np.mean(norms) > 0 else 1.0
        if norm > 0:
            merged = [one * np.mean(norms) / norm for one in merged]
    return merged


def clear(stack, alpha):
    """Tell whether no share of a running merge lies at alpha and no rank is in doubt."""
    merged = stack[0].copy()
    for delta in stack[1:]:
        values = np.linalg.svd(merged, compute_uv=False)
        if values[0] > 0:
            kept = values[values > 1e-12 * values[0]] / values[0]
            shares = np.cumsum(kept) / kept.sum()
            if (
                (np.abs(shares - alpha) < 1e-4)[:-1].any()
                or (kept < 1e-3).any()
                or (np.diff(kept) > -1e-2).any()
            ):
                return False
            if ((values > 1e-9 * values[0]) & (values < 1e-3 * values[0])).any():
                return False
        merged += projected(delta, merged, alpha)
    return True


@settings(max_examples=80, deadline=None)
@given(made_deltas(most=3), st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]))
def test_opcm_is_the_published_recursion(stack, alpha):
    assume(clear(stack, alpha))
    wanted = published([stack], alpha, [True])[0]
    close(run(opcm, stack, alpha=alpha), wanted, np.linalg.norm(stack), tolerance=2e-4)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("shape", [(12, 12), (7, 30), (30, 7)])
def test_what_is_added_is_orthogonal_to_the_merge(alpha, shape):
    generator = torch.Generator().manual_seed(0)
    merged, delta = (torch.randn(shape, generator=generator) for _ in range(2))
    added = outside(delta, merged, alpha=alpha)
    cosine = (added * merged).sum() / delta.norm() / merged.norm()
    assert abs(float(cosine)) < 1e-6
    wanted = projected(delta.double().numpy(), merged.double().numpy(), alpha)
    close(added.double().numpy(), wanted, float(delta.norm()))


def test_alpha_one_closes_the_whole_space_whatever_the_rounding():
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        merged, delta = (torch.randn(8, 6, generator=generator) for _ in range(2))
        added = outside(delta, merged, alpha=1.0)
        left, _, right = torch.linalg.svd(merged, full_matrices=False)
        assert (left.T @ added @ right.T).abs().max() < 1e-5


def test_zero_merges_and_zero_experts_are_no_trouble():
    delta = torch.randn(4, 5, generator=torch.Generator().manual_seed(2))
    zero = torch.zeros_like(delta)
    torch.testing.assert_close(outside(delta, zero, alpha=0.5), delta)
    assert not opcm(torch.stack([zero, zero])).any()
    torch.testing.assert_close(opcm(torch.stack([zero, delta])), delta / 2)


def test_experts_side_by_side_are_merged_as_one_by_one():
    stack = torch.randn(3, 2, 5, 6, generator=torch.Generator().manual_seed(3))
    found = opcm(stack)
    for place in range(2):
        torch.testing.assert_close(found[:, :][place], opcm(stack[:, place]))


def model(rng, scale):
    shapes = {
        "layers.0.up.weight": (6, 9),
        "layers.0.down.weight": (9, 6),
        "embed_tokens.weight": (10, 6),
        "norm": (6,),
    }
    return {name: torch.from_numpy(scale * rng.normal(size=shape)).float() for name, shape in shapes.items()}


def test_the_state_on_disk_is_the_published_merge_of_the_whole_model(tmp_path):
    rng = np.random.default_rng(0)
    base = model(rng, 1.0)
    experts = [
        {
            name: tensor + change
            for (name, tensor), change in zip(base.items(), model(rng, scale).values(), strict=True)
        }
        for scale in (0.1, 0.3, 0.2, 0.1)
    ]
    state = opcm_start(base, tmp_path / "state")
    for expert in experts[:2]:
        state = opcm_add(state, expert)
    state = opcm_open(base, tmp_path / "state")
    for expert in experts[2:]:
        state = opcm_add(state, expert)
    names = list(base)
    stacks = [np.stack([(one[name] - base[name]).double().numpy() for one in experts]) for name in names]
    wanted = published(stacks, 0.5, [linear_weight(name, base[name]) for name in names])
    found = dict(opcm_merged(state))
    for name, delta in zip(names, wanted, strict=True):
        close((found[name] - base[name]).double().numpy(), delta, tolerance=2e-5)
    total = sum(float((found[name] - base[name]).double().square().sum()) for name in names) ** 0.5
    assert abs(total / state.progress.mean_norm - 1) < 1e-5
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["state.json", "sum-00004"]


def test_the_first_expert_comes_back_and_nothing_gives_the_base(tmp_path):
    rng = np.random.default_rng(1)
    base, expert = model(rng, 1.0), model(rng, 1.0)
    state = opcm_start(base, tmp_path / "state")
    assert all(torch.equal(tensor, base[name]) for name, tensor in opcm_merged(state))
    state = opcm_add(state, expert)
    for name, tensor in opcm_merged(state):
        torch.testing.assert_close(tensor, expert[name])


def test_an_interrupted_addition_leaves_the_state_before_it(tmp_path):
    rng = np.random.default_rng(2)
    base = model(rng, 1.0)
    state = opcm_add(opcm_start(base, tmp_path / "state"), model(rng, 1.0))
    broken = model(rng, 1.0)
    broken["norm"][0] = float("nan")
    with pytest.raises(NumericalError, match="norm"):
        opcm_add(state, broken)
    again = opcm_open(base, tmp_path / "state")
    assert again.progress == state.progress
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["state.json", "sum-00001"]
    (tmp_path / "state" / "sum-00002").mkdir()
    assert opcm_add(again, model(rng, 1.0)).progress.seen == 2


def test_mistakes_are_told(tmp_path):
    base = model(np.random.default_rng(3), 1.0)
    with pytest.raises(ConfigError, match="alpha"):
        opcm_start(base, tmp_path / "state", alpha=1.5)
    with pytest.raises(CheckpointError, match="no state"):
        opcm_open(base, tmp_path / "state")
    state = opcm_start(base, tmp_path / "state")
    with pytest.raises(OutputError):
        opcm_start(base, tmp_path / "state")
    with pytest.raises(CheckpointError, match=r"embed_tokens\.weight"):
        opcm_add(state, {name: tensor for name, tensor in base.items() if "embed" not in name})
    with pytest.raises(CheckpointError, match=r"norm is \[7\]"):
        opcm_add(state, base | {"norm": torch.zeros(7)})
    state = opcm_add(state, base)
    (tmp_path / "state" / "sum-00001" / "00000.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="damaged"):
        dict(opcm_merged(state))
    assert json.loads((tmp_path / "state" / "state.json").read_text())["seen"] == 1
