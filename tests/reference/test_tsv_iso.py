"""TSV-M, Iso-C and Iso-CTS against loops in float64 written from the papers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.reference.spectral import close, decompose, isometry, made_deltas, run
from umaf.merging.methods.iso import iso_c, iso_cts
from umaf.merging.methods.tsv import tsv_m


def independent(*stacks):
    """Tell whether columns are either clearly independent or clearly not, so that no rank depends on rounding."""
    for stack in stacks:
        values = np.linalg.svd(stack, compute_uv=False) if stack.size else np.ones(1)
        if ((values > 1e-9) & (values < 0.03)).any():
            return False
    return True


def tsv_reference(stack, keep="share"):
    models, out, width = stack.shape
    count = max(1, min(out, width) // models) if keep == "share" else min(out, width)
    lefts, values, rights = [], [], []
    for delta in stack:
        left, value, right = decompose(delta)
        lefts.append(left[:, :count])
        values.append(value[:count])
        rights.append(right[:count])
    left, value, right = np.concatenate(lefts, 1), np.concatenate(values), np.concatenate(rights)
    assume(independent(left, right))
    if len(value) == 0:
        return np.zeros((out, width))
    return isometry(left) @ np.diag(value) @ isometry(right)


@settings(max_examples=60, deadline=None)
@given(made_deltas(), st.sampled_from(["share", "all"]), st.sampled_from(["gram", "svd"]))
def test_tsv_is_the_paper_s(stack, keep, whiten):
    close(run(tsv_m, stack, keep=keep, whiten=whiten), tsv_reference(stack, keep), tolerance=2e-4)


@settings(max_examples=30, deadline=None)
@given(made_deltas(most=1))
def test_tsv_of_one_expert_is_that_expert(stack):
    close(run(tsv_m, stack), stack[0])


def iso_c_reference(stack, mean):
    left, values, right = decompose(stack.sum(0), np.linalg.norm(stack.sum(0), 2))
    if len(values) == 0:
        return np.zeros(stack.shape[1:])
    places = len(values) if mean == "rank" else min(stack.shape[1:])
    return values.sum() / places * left @ right


@settings(max_examples=60, deadline=None)
@given(made_deltas(), st.sampled_from(["rank", "all"]))
def test_iso_c_is_the_paper_s(stack, mean):
    assume(independent(stack.sum(0)))
    close(run(iso_c, stack, mean=mean), iso_c_reference(stack, mean), tolerance=1e-4)


def iso_cts_reference(stack, common, mean):
    models, out, width = stack.shape
    size = min(out, width)
    own = min(round((size - int(size * common)) / models), size // models)
    shared = size - own * models
    left, values, right = (part for part in decompose(stack.sum(0)))
    left, values, right = left[:, :shared], values[:shared], right[:shared]
    lefts, all_values, rights = [], [], []
    for delta in stack:
        rest = delta - left @ left.T @ delta
        one, two, three = decompose(rest, np.linalg.norm(delta))
        assume(independent(rest))
        lefts.append(one[:, :own])
        all_values.append(two[:own])
        rights.append(three[:own])
    left = np.concatenate([*lefts, left], 1)
    right = np.concatenate([*rights, right])
    values = np.concatenate([*all_values, values])
    assume(independent(left, right))
    if len(values) == 0:
        return np.zeros((out, width))
    places = len(values) if mean == "rank" else shared + own * models
    return values.sum() / places * isometry(left) @ isometry(right)


@settings(max_examples=60, deadline=None)
@given(made_deltas(equal=False), st.sampled_from([0.0, 0.5, 0.8, 1.0]), st.sampled_from(["rank", "all"]))
def test_iso_cts_is_the_paper_s(stack, common, mean):
    values = np.linalg.svd(stack.sum(0), compute_uv=False)
    assume(independent(stack.sum(0)) and (np.diff(values) < -0.02 * values[0]).all())
    close(
        run(iso_cts, stack, common=common, mean=mean), iso_cts_reference(stack, common, mean), tolerance=1e-3
    )


@pytest.mark.parametrize("method", [tsv_m, iso_c, iso_cts])
@pytest.mark.parametrize(("shape", "ranks"), [((24, 15), (3, 2, 4)), ((12, 40), (2, 6, 1))])
def test_merging_cores_is_merging_the_matrices(method, shape, ranks):
    rng = np.random.default_rng(3)
    size = sum(ranks)
    left, _ = np.linalg.qr(rng.normal(size=(shape[0], min(size, shape[0]))))
    right, _ = np.linalg.qr(rng.normal(size=(shape[1], min(size, shape[1]))))
    cores = np.stack(
        [rng.normal(size=(left.shape[1], r)) @ rng.normal(size=(r, right.shape[1])) for r in ranks]
    )
    whole = left @ cores @ right.T
    found = left @ run(method, cores, shape=shape) @ right.T
    close(found, run(method, whole), tolerance=1e-4)
