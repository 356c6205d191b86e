"""Trim, elect, drop: every option of the sparse methods against the papers' rules in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.reference import sparse
from umaf.merging.contract import once
from umaf.merging.methods.breadcrumbs import breadcrumbs, breadcrumbs_ties
from umaf.merging.methods.consensus import consensus_ta, consensus_ties
from umaf.merging.methods.emr import emr_unified
from umaf.merging.methods.pcb import pcb
from umaf.merging.methods.sce import sce
from umaf.merging.methods.ties import ties
from umaf.merging.methods.varm import varm

KINDS = ["normal", "bfloat16", "grid", "zeros", "sparse", "equal"]


def made(kind, models, n, seed):
    generator = torch.Generator().manual_seed(seed)
    stack = torch.randn(models, n, generator=generator)
    if kind == "bfloat16":
        return (1 + stack * 0.01).bfloat16().float() - 1
    if kind == "grid":
        return stack.mul(2).round() / 2
    if kind == "zeros":
        return torch.zeros(models, n)
    if kind == "sparse":
        return stack * (torch.rand(models, n, generator=generator) > 0.7)
    if kind == "equal":
        return stack[:1].expand(models, n).contiguous()
    return stack * 0.002


stacks = st.builds(made, st.sampled_from(KINDS), st.integers(1, 4), st.integers(1, 40), st.integers(0, 10**6))


def rows(stack):
    return [row for row in stack.double().numpy()]


def check(found, expected, scale=1e-5):
    expected = torch.as_tensor(np.asarray(expected))
    size = float(expected.abs().max()) if expected.numel() else 0.0
    torch.testing.assert_close(found.double(), expected, rtol=scale, atol=scale * size + 1e-30)


@settings(max_examples=150, deadline=None)
@given(
    stacks,
    st.sampled_from([0.05, 0.2, 0.5, 0.9, 1.0]),
    st.sampled_from(["unweighted", "weighted"]),
    st.sampled_from(["majority", "plus"]),
    st.sampled_from(["count", "weights"]),
    st.sampled_from(["mean", "sum", "max"]),
    st.sampled_from(["code", "down"]),
)
def test_ties_with_every_option(stack, density, elect, tie, divisor, combine, rounding):
    weights = [0.5, 1.0, 2.0, 0.25][: len(stack)]
    options = dict(elect=elect, tie=tie, divisor=divisor, combine=combine, rounding=rounding)
    found = ties(stack, weight=weights, density=density, **options)
    check(found, sparse.ties(rows(stack), weights=weights, density=[density] * len(stack), **options))


def test_ties_with_a_negative_weight_elects_on_what_is_added():
    stack = torch.tensor([[1.0, 2.0], [3.0, 1.0]])
    options = dict(elect="weighted", tie="plus", divisor="weights", combine="mean", rounding="down")
    found = ties(stack, weight=[1.0, -1.0], density=1.0, **options)
    # Entry 0: 1 and -3, minus wins, -3 over its weight -1. Entry 1: 2 and -1, plus wins.
    assert found.tolist() == [3.0, 2.0]


def test_a_tie_goes_to_the_majority_of_entries():
    stack = torch.tensor([[1.0, -2.0, -3.0], [-1.0, -2.0, -1.0]])
    assert ties(stack, density=1.0).tolist() == [-1.0, -2.0, -2.0]
    assert ties(stack, density=1.0, tie="plus").tolist() == [1.0, -2.0, -2.0]


@settings(max_examples=80, deadline=None)
@given(stacks, st.sampled_from([0.05, 0.5, 0.9, 1.0]), st.sampled_from([0.0, 0.01, 0.1, 0.5]))
def test_breadcrumbs(stack, density, gamma):
    weights = [0.5, 1.0, 2.0, 0.25][: len(stack)]
    found = breadcrumbs(stack, weight=weights, density=density, gamma=gamma)
    many = len(stack)
    check(
        found,
        sparse.breadcrumbs(rows(stack), weights=weights, density=[density] * many, gamma=[gamma] * many),
    )


@pytest.mark.parametrize("n", [10, 64, 100, 333])
@pytest.mark.parametrize("gamma", [0.0, 0.005, 0.1])
def test_breadcrumbs_keep_exactly_as_many_as_asked(n, gamma):
    # A share of 0 at the top must not empty the tensor.
    stack = torch.randn(1, n, generator=torch.Generator().manual_seed(n))
    kept = breadcrumbs(stack, density=0.5, gamma=gamma)
    assert int(kept.count_nonzero()) == int(0.5 * n)
    over = int(gamma * n)
    order = stack[0].abs().argsort(descending=True)
    assert torch.equal(kept.nonzero()[:, 0].sort().values, order[over : over + int(0.5 * n)].sort().values)


def test_breadcrumbs_ties_is_breadcrumbs_with_an_election():
    stack = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    alone = [breadcrumbs(row[None], density=0.6, gamma=0.1) for row in stack]
    crumbs = [row.double().numpy() for row in alone]
    weights = [1.0, 0.5, 2.0]
    for combine, divisor in [("sum", "weights"), ("mean", "weights"), ("mean", "count")]:
        signs = sparse.vote(crumbs, weights, elect="weighted", tie="plus")
        shares = weights if divisor == "weights" else [1.0] * 3
        expected = sparse.elected(crumbs, signs, weights, shares, combine)
        options = dict(density=0.6, gamma=0.1, combine=combine, divisor=divisor)
        check(breadcrumbs_ties(stack, weight=weights, **options), expected)


@settings(max_examples=100, deadline=None)
@given(
    st.builds(
        made,
        st.sampled_from(["normal", "zeros", "equal"]),
        st.integers(1, 4),
        st.integers(1, 40),
        st.integers(0, 999),
    ),
    st.sampled_from([0.05, 0.1, 0.5, 1.0]),
    st.sampled_from(["weights", "deltas"]),
)
def test_sce_in_both_readings(stack, share, select):
    if bool((stack == stack[0]).all()):
        # Rounding decides whether equal numbers vary in float64; in float32 they must not.
        expected = stack[0] if select == "weights" or share == 1 else torch.zeros_like(stack[0])
        check(sce(stack, select_topk=share, select=select), expected.double())
        return
    check(
        sce(stack, select_topk=share, select=select),
        sparse.sce(rows(stack), select_topk=share, select=select),
    )


def test_sce_weighs_small_deltas_too():
    # Deltas of bfloat16 fine-tuning: their mean squares are far below 1e-6, and still tell the models apart.
    stack = torch.tensor([[1e-5, 1e-5], [3e-5, 3e-5]])
    check(sce(stack, select_topk=1.0), [2.8e-5, 2.8e-5])


@settings(max_examples=60, deadline=None)
@given(stacks)
def test_varm_and_the_elected_vector(stack):
    check(varm(stack), sparse.varm(rows(stack)))
    check(emr_unified(stack), sparse.emr(rows(stack)))


@settings(max_examples=80, deadline=None)
@given(stacks, st.integers(0, 5), st.sampled_from([0.2, 0.4, 0.6]))
def test_consensus_with_a_threshold(stack, least, threshold):
    weights = [0.5, 1.0, 2.0, 0.25][: len(stack)]
    limits = [threshold] * len(stack)
    total = sum(w * row.double() for w, row in zip(weights, stack, strict=True)).numpy()
    # Where both sides are equal, rounding decides; such entries are left out.
    gap = np.abs(rows(stack)) - threshold * np.abs(total - np.array(rows(stack)))
    clear = (np.abs(gap) > 1e-6 * np.abs(total).max() + 1e-12) | (np.array(rows(stack)) == 0)
    mask = torch.from_numpy(clear.all(0))
    found = consensus_ta(stack, weight=weights, least=least, threshold=threshold)
    expected = sparse.consensus(rows(stack), total, threshold=limits, least=least)
    check(found[mask], expected[mask.numpy()])

    options = dict(elect="unweighted", tie="majority", divisor="count", combine="sum", rounding="code")
    total = sparse.ties(rows(stack), weights=[1.0] * len(stack), density=[0.5] * len(stack), **options)
    gap = np.abs(rows(stack)) - threshold * np.abs(total - np.array(rows(stack)))
    clear = (np.abs(gap) > 1e-6 * np.abs(total).max() + 1e-12) | (np.array(rows(stack)) == 0)
    mask = torch.from_numpy(clear.all(0))
    found = consensus_ties(stack, trimmed=0.5, least=least, threshold=threshold)
    check(found[mask], sparse.consensus(rows(stack), total, threshold=limits, least=least)[mask.numpy()])


def test_consensus_by_density_uses_the_share_that_was_asked_for():
    stack = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0))
    total = stack.sum(0)
    ratio = (stack / (total - stack)).abs()
    bound = ratio.sort(1, descending=True).values[:, 349:350]
    expected = torch.where((ratio >= bound).sum(0) >= 2, total, 0.0)
    torch.testing.assert_close(consensus_ta(stack, masks="density", density=0.35), expected)
    found = consensus_ties(stack, masks="density", density=0.35, trimmed=1.0, least=0)
    torch.testing.assert_close(found, ties(stack, density=1.0, combine="sum"))


def test_an_expert_that_is_the_base_takes_no_part_in_the_competition_of_pcb():
    # The authors' program divides 0 by 0 there.
    one = torch.tensor([1.0, -4.0, 2.0, 4.0, 0.5, -0.25])
    found = pcb(torch.stack([one, torch.zeros(6)]), density=0.5)
    assert bool(((found == 0) | ((found - one).abs() < 1e-6)).all()) and int(found.count_nonzero()) >= 2


def test_an_expert_that_pcb_clamps_to_nothing_is_not_the_base():
    stack = torch.tensor([[0.0, -0.2934, 0.0, 0.0], [0.0, -1.3986, 0.0, 0.8380]])
    expected = sparse.pcb_code(rows(stack), weights=[1.0, 1.0], density=[0.05, 0.05])
    check(pcb(stack, density=0.05), expected)


@settings(max_examples=80, deadline=None)
@given(
    st.builds(
        made,
        st.sampled_from(["normal", "zeros", "sparse"]),
        st.integers(1, 4),
        st.integers(1, 40),
        st.integers(0, 999),
    ),
    st.sampled_from([0.05, 0.2, 0.7, 1.0]),
)
def test_pcb_as_in_the_authors_program(stack, density):
    assume(not sparse.pcb_nearly_tied(rows(stack), density))
    weights = [0.8, 1.0, 1.3, 0.9][: len(stack)]
    expected = sparse.pcb_code(rows(stack), weights=weights, density=[density] * len(stack))
    found = pcb(stack, weight=weights, density=density)
    # Dividing by scores near 0 magnifies rounding; their numerators are as small.
    check(found, expected, scale=2e-3)


@settings(max_examples=80, deadline=None)
@given(
    st.builds(
        made, st.sampled_from(["normal", "zeros"]), st.integers(1, 4), st.integers(1, 40), st.integers(0, 999)
    ),
    st.sampled_from([0.05, 0.2, 0.7, 1.0]),
)
def test_pcb_as_in_the_paper(stack, density):
    weights = [0.8, 1.0, 1.3, 0.9][: len(stack)]
    expected = sparse.pcb_paper(rows(stack), weights=weights, density=[density] * len(stack))
    check(pcb(stack, weight=weights, density=density, reading="paper"), expected, scale=1e-4)


@pytest.mark.parametrize("function", [ties, breadcrumbs, sce, varm, consensus_ties, pcb])
def test_measuring_in_chunks_and_merging_in_chunks_is_merging_at_once(function):
    stack = torch.randn(3, 5000, generator=torch.Generator().manual_seed(1)) * 1e-3
    method = function.method
    measured = method.measure(lambda: iter([("w", part) for part in stack.split(512, 1)]), models=3)
    parts = [function(part, measured=measured) for part in stack.split(777, 1)]
    torch.testing.assert_close(torch.cat(parts), function(stack), rtol=1e-5, atol=1e-8)
    assert sorted(measured) == sorted(method.measure(once(stack), models=3))


def test_a_whole_model_is_trimmed_by_one_threshold():
    large, small = torch.full((1, 10), 3.0), torch.full((1, 90), 1.0)
    small[0, 0] = 2.0
    tensors = [("large", large), ("small", small)]
    measured = ties.method.measure(lambda: iter(tensors), models=1, density=0.1, rounding="down")
    assert ties(large, density=0.1, measured=measured).count_nonzero() == 10
    assert ties(small, density=0.1, measured=measured).count_nonzero() == 0
    assert ties(small, density=0.1, rounding="down").count_nonzero() == 90  # ties with the ninth largest, 1
    assert ties.method.measured_over({}) == "model"
    assert ties.method.measured_over({"trim": "tensor"}) == "tensor"


@settings(max_examples=60, deadline=None)
@given(stacks, st.sampled_from([0.2, 0.5, 1.0]), st.sampled_from(["weighted", "unweighted"]), st.booleans())
def test_ties_may_keep_the_sum_of_magnitudes(stack, density, elect, majority):
    tie = "majority" if majority else "plus"
    options = {"density": density, "elect": elect, "tie": tie, "rounding": "down"}
    least = max(1, int(density * stack.shape[1]))
    kept = [row * (abs(row) >= np.sort(abs(row))[-least]) for row in rows(stack)]
    size = [
        row * (abs(whole).sum() / abs(row).sum() if abs(row).sum() else 1.0)
        for row, whole in zip(kept, rows(stack), strict=True)
    ]
    alone = torch.as_tensor(np.stack(size))
    expected = ties(alone, **{**options, "density": 1.0})
    check(ties(stack, rescale="l1", **options), expected, scale=1e-4)
