"""WIDEN, SOMF, localize-and-stitch, layer swapping and MWA against slow float64 versions written from the papers."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from umaf.errors import ConfigError
from umaf.merging.methods.layer_swap import layer_swap, schedule
from umaf.merging.methods.localize_and_stitch import localize_and_stitch
from umaf.merging.methods.mwa import mwa, smoothed
from umaf.merging.methods.somf import somf
from umaf.merging.methods.widen import widen
from umaf.merging.running.apply import merge_states, merge_tensors
from umaf.seeds import generator

QUICK = settings(max_examples=25, deadline=None)
SEEDS = st.integers(0, 2**30)


def drawn(seed, *shape):
    return torch.randn(*shape, generator=generator(seed, "deltas"))


def scores(significance, t, s, divisor=1):
    """Softmax over models, and s where a model's entry is above t times its own mean; `[model, entry]`."""
    found = torch.softmax(significance / divisor, 0)
    for model in range(len(significance)):
        found[model][significance[model] > t * significance[model].mean()] = s
    return found


def widen_slowly(base, deltas, t, s):
    base, deltas = base.double(), deltas.double()
    width = base.shape[1]

    def ranks(values):
        found = torch.empty_like(values)
        for place, index in enumerate(values.sort(stable=True).indices.tolist()):
            found[index] = place
        return found

    lengths, turns = [], []
    for delta in deltas:
        model = base + delta
        lengths.append(ranks((model.norm(dim=0) - base.norm(dim=0)).abs()))
        turns.append(ranks(1 - torch.cosine_similarity(model, base, dim=0)))
    score = (scores(torch.stack(lengths), t, s, width) + scores(torch.stack(turns), t, s, width)) / 2
    return sum(delta * one[None, :] for delta, one in zip(deltas, score, strict=True))


@given(SEEDS, st.integers(1, 4), st.sampled_from([0.5, 1.0, 1.4]), st.sampled_from([1.0, 0.8]))
@QUICK
def test_widen(seed, models, t, s):
    base, deltas = drawn(seed + 1, 9, 13), 0.3 * drawn(seed, models, 9, 13)
    expected = widen_slowly(base, deltas, t, s)
    found = widen(deltas, base=base, above_average=t, calibration=s)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    turned = widen(deltas.mT, base=base.mT, above_average=t, calibration=s, vectors="rows")
    assert torch.equal(turned, found.mT)


@given(SEEDS, st.integers(1, 4))
@QUICK
def test_widen_of_vectors(seed, models):
    deltas = drawn(seed, models, 11)
    significance = deltas.double().abs()
    expected = (scores(significance, 1.0, 1.0) * deltas.double()).sum(0)
    torch.testing.assert_close(widen(deltas).double(), expected, rtol=1e-5, atol=1e-6)


def test_widen_gets_the_weights_of_the_base():
    base, deltas = drawn(1, 9, 13), 0.3 * drawn(2, 2, 9, 13)
    engine = merge_tensors("widen", [base + delta for delta in deltas], base=base)
    exact = base.double() + widen_slowly(base, deltas, 1.0, 1.0)
    torch.testing.assert_close(engine.double(), exact, rtol=1e-5, atol=1e-5)


def test_widen_of_tiny_changes_ranks_as_float64_does():
    # In bfloat16-sized steps, |W| - |W_0| and 1 - cos lose all digits unless they are taken from the delta.
    base, deltas = drawn(1, 64, 40), 1e-4 * drawn(2, 2, 64, 40)
    found = widen(deltas, base=base) / 1e-4
    torch.testing.assert_close(
        found.double(), widen_slowly(base, deltas, 1.0, 1.0) / 1e-4, rtol=1e-3, atol=1e-3
    )


@given(SEEDS, st.booleans(), st.sampled_from(["soft", "binary"]))
@QUICK
def test_somf(seed, rescale, kind):
    deltas, probabilities = drawn(seed, 3, 4, 5), torch.sigmoid(drawn(seed + 1, 4, 5))
    gate = (probabilities > 0.5).double() if kind == "binary" else probabilities.double()
    gate = gate / gate.mean() if rescale else gate
    expected = gate * (0.3 * deltas[0] + 0.3 * deltas[1] + 0.5 * deltas[2]).double()
    weight = [0.3, 0.3, 0.5, 1.0]
    found = somf(torch.cat([deltas, probabilities[None]]), weight=weight, mask=kind, rescale=rescale)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    base = drawn(seed + 2, 4, 5)
    models = [*(base + deltas).unbind(0), probabilities]
    engine = merge_tensors("somf", models, base=base, weight=weight, mask=kind, rescale=rescale)
    torch.testing.assert_close(engine.double(), base.double() + expected, rtol=1e-4, atol=1e-5)


def stitched_slowly(deltas, density, rounding="code"):
    total, count = torch.zeros(deltas.shape[1]).double(), torch.zeros(deltas.shape[1]).double()
    for delta in deltas.double():
        region = max(1, int(density * len(delta)))
        # The authors' program: `values, _ = topk(abs, k)`, `abs > values.min()`.
        region -= rounding == "code" and 1 < region < len(delta)
        keep = delta.abs().sort(descending=True).indices[:region]
        total[keep] += delta[keep]
        count[keep] += 1
    return total / count.clamp(min=1)


@given(SEEDS, st.integers(1, 4), st.sampled_from([0.02, 0.1, 0.5, 1.0]), st.sampled_from(["code", "down"]))
@QUICK
def test_localize_and_stitch(seed, models, density, rounding):
    deltas = drawn(seed, models, 57)
    found = localize_and_stitch(deltas, density=density, rounding=rounding)
    torch.testing.assert_close(
        found.double(), stitched_slowly(deltas, density, rounding), rtol=1e-5, atol=1e-6
    )


def test_localize_and_stitch_over_the_whole_model():
    deltas = drawn(3, 2, 57)
    base = {"a": torch.zeros(20), "b": torch.zeros(37)}
    models = [{"a": row[:20], "b": row[20:]} for row in deltas]
    merged = merge_states("localize_and_stitch", models, base=base, density=0.3)
    whole = torch.cat([merged["a"], merged["b"]]).double()
    torch.testing.assert_close(whole, stitched_slowly(deltas, 0.3), rtol=1e-5, atol=1e-6)
    each = merge_states("localize_and_stitch", models, base=base, density=0.3, localize="tensor")
    torch.testing.assert_close(each["a"].double(), stitched_slowly(deltas[:, :20], 0.3), rtol=1e-5, atol=1e-6)


def test_entries_that_did_not_change_are_in_no_region():
    deltas = torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 4.0, 0.0, 0.0]])
    assert torch.equal(localize_and_stitch(deltas, density=1.0), torch.tensor([2.0, 4.0, 0.0, 0.0]))


def test_schedules():
    assert schedule(6, bottom=2, top=1, transition=0) == (1.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    assert schedule(9, bottom=1, top=1, transition=3, ramp=True) == (
        1,
        0.75,
        0.5,
        0.25,
        0,
        0.25,
        0.5,
        0.75,
        1,
    )
    with pytest.raises(ConfigError, match="does not fit into 4 layers"):
        schedule(4, bottom=2, top=2, transition=1)


@given(SEEDS, st.floats(0, 1))
@QUICK
def test_layer_swap(seed, share):
    stack = drawn(seed, 2, 3, 4)
    expected = share * stack[0].double() + (1 - share) * stack[1].double()
    torch.testing.assert_close(layer_swap(stack, share=share).double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(layer_swap(stack, share=1.0), stack[0])
    assert torch.equal(layer_swap(stack, share=0.0), stack[1])


@given(SEEDS, st.lists(st.floats(0.01, 100), min_size=1, max_size=5), st.floats(0, 8), st.booleans())
@QUICK
def test_mwa(seed, metric, alpha, lower):
    stack = drawn(seed, len(metric), 6)
    values = torch.tensor(metric, dtype=torch.float64)
    weight = values**-alpha if lower else values**alpha
    expected = (weight / weight.sum()) @ stack.double()
    found = mwa(stack, metric=metric, alpha=alpha, better="lower" if lower else "higher")
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_smoothed_losses():
    assert smoothed([5.0, 3.0, 1.0], [0, 2], window=2) == [5.0, 2.0]
    with pytest.raises(ConfigError, match="does not lie in a log of 3 losses"):
        smoothed([5.0, 3.0, 1.0], [3], window=2)
