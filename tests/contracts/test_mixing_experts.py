"""What every mixture of experts keeps to, for any numbers; and where the authors' release does not."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from umaf.errors import ExpertError
from umaf.experts import Expert, ExpertCard, add, bounded, mix, mix_rows, negate, scale, unbounded

CARD = ExpertCard(base="base", base_identity="one", architecture="llama", modules=("a", "b"))
MULTIPLIER = st.floats(0, 2, width=32)
WEIGHT = st.floats(-3, 3, width=32)


def numbers(*shape, of=MULTIPLIER):
    return arrays("float32", shape, elements=of).map(lambda array: torch.from_numpy(array.copy()))


def shelf(stack, other=None):
    """Experts with module a of size 4, and b of size 2 for those who have it."""
    found = []
    for index, row in enumerate(stack):
        z = {"a": row}
        if other is not None and index < len(other):
            z["b"] = other[index]
        found.append(Expert(f"e{index}", z, CARD))
    return found


@given(numbers(3, 4), st.integers(0, 2))
def test_one_weight_of_one_is_that_expert_bit_for_bit(stack, chosen):
    weights = torch.zeros(3)
    weights[chosen] = 1
    assert torch.equal(mix(shelf(stack), weights)["a"], stack[chosen])
    rows = mix_rows(shelf(stack), torch.stack([weights, torch.zeros(3)]))["a"]
    assert torch.equal(rows[0], stack[chosen]) and torch.equal(rows[1], torch.ones(4))


@given(numbers(3, 4))
def test_weights_of_zero_are_the_base_bit_for_bit(stack):
    assert torch.equal(mix(shelf(stack), [0.0, 0.0, 0.0])["a"], torch.ones(4))


@given(numbers(3, 4))
def test_weights_that_cancel_are_no_special_case(stack):
    # The authors' release divides by the sum of the weights, here zero.
    assert torch.isfinite(mix(shelf(stack), [1.0, -1.0, 0.0])["a"]).all()


@given(numbers(3, 4), numbers(3, 4).map(lambda z: z[:, :2].contiguous()), numbers(5, 3, of=WEIGHT))
def test_it_is_the_weighted_sum_of_changes_in_float64(stack, other, weights):
    found = mix_rows(shelf(stack, other[:2]), weights)
    for name, z in (("a", stack), ("b", torch.cat([other[:2], torch.ones(1, 2)]))):
        for row in range(5):
            for column in range(z.shape[1]):
                wanted = 1 + math.fsum(float(weights[row, k]) * (float(z[k, column]) - 1) for k in range(3))
                assert float(found[name][row, column]) == pytest.approx(wanted, rel=1e-6, abs=1e-6)


@given(numbers(2, 4), numbers(2, 2, of=WEIGHT))
def test_weights_per_module_are_weights_of_each_module_alone(stack, weights):
    experts = shelf(stack, stack[:, :2].contiguous())
    found = mix(experts, weights)
    for column, name in enumerate(("a", "b")):
        assert torch.equal(found[name], mix(experts, weights[:, column])[name])


@given(numbers(2, 4), numbers(3, 2, of=WEIGHT))
def test_rows_equal_mixtures_one_by_one(stack, weights):
    rows = mix_rows(shelf(stack), weights)["a"]
    for row in range(3):
        assert torch.equal(rows[row], mix(shelf(stack), weights[row])["a"])


@given(numbers(1, 4))
def test_scaling_and_negating_are_mixtures(stack):
    (expert,) = shelf(stack)
    assert torch.equal(scale(expert, 1.0).z["a"], stack[0])
    assert torch.equal(scale(expert, 0.0).z["a"], torch.ones(4))
    assert torch.allclose(negate(expert).z["a"], 2 - stack[0])
    assert torch.allclose(add("none", [expert, negate(expert)]).z["a"], torch.ones(4), atol=1e-6)
    assert negate(expert).name == "-e0" and negate(expert).card.settings["weights"] == [-1.0]


@settings(max_examples=50)
@given(numbers(4, of=st.floats(-8, 8, width=32)))
def test_the_bound_has_an_inverse_and_never_leaves_its_range(p):
    z = bounded(p.double())
    assert ((z > 0) & (z < 2)).all()
    assert torch.allclose(unbounded(z), p.double(), atol=1e-6)


def test_the_bound_starts_at_one_with_slope_one():
    p = torch.zeros(3, requires_grad=True)
    bounded(p).sum().backward()
    assert torch.equal(bounded(p), torch.ones(3)) and torch.equal(p.grad, torch.ones(3))
    assert torch.isfinite(unbounded(torch.tensor([0.0, 2.0, 5.0, -1.0]))).all()


def test_mixing_before_the_bound_would_be_another_expert():
    """The authors mix the parameters before their sigmoid: one expert with weight one is then not that expert."""
    p = 0.1 + 0.05 * torch.randn(200, generator=torch.Generator().manual_seed(0))
    s = torch.linspace(3, 0.1, 200)

    def theirs(mask):
        return mask * s.sum() / (s * mask).sum()

    trained, released = theirs(torch.sigmoid(p)), theirs(p)
    ratio = (s * (released - 1)).norm() / (s * (trained - 1)).norm()
    assert 15 < ratio < 22  # 18.7 at 8B
    assert torch.equal(mix([Expert("e", {"a": trained}, CARD)], [1.0])["a"], trained)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([1.0, 2.0, 3.0], r"2 experts of 1 modules were given weights of shape \[3\]"),
        ([[1.0, 2.0], [1.0, 2.0]], r"weights of shape \[2, 2\]"),
        ([1.0, math.nan], "NaN or infinite"),
    ],
)
def test_weights_of_another_shape_or_nan_are_refused(weights, said):
    with pytest.raises(ExpertError, match=said):
        mix(shelf(torch.ones(2, 4)), weights)


def test_nothing_and_strangers_cannot_be_mixed():
    with pytest.raises(ExpertError, match="no experts"):
        mix([], [])
    other = Expert("x", {"a": torch.ones(4)}, CARD.model_copy(update={"base_identity": "two"}))
    with pytest.raises(ExpertError, match=r'"e0" \(base\) and "x" \(base\) are of different bases'):
        mix([*shelf(torch.ones(1, 4)), other], [1.0, 1.0])
    odd = Expert("x", {"a": torch.ones(3)}, CARD)
    with pytest.raises(ExpertError, match=r'"x" has \[3\] multipliers for "a", others have \[4\]'):
        mix([*shelf(torch.ones(1, 4)), odd], [1.0, 1.0])
