"""Merge methods with one mistake each: every check must find its own, and say so in a sentence."""

from __future__ import annotations

import pytest
import torch

from umaf.merging.contract import Needs, merge_method
from umaf.testing import BrokenPromise, check_merge_method, check_promise, merge_method_checks

ELEMENT = Needs(base="required", scope="element")


def method(function):
    return merge_method(ELEMENT, source="made up")(function)


@method
def right(deltas):
    """Average."""
    return deltas.mean(0)


@method
def kept_axis(deltas):
    """Forget that the models' axis goes."""
    return deltas.mean(0, keepdim=True)


@method
def in_place(deltas):
    """Write into the input."""
    return deltas.sub_(deltas.mean(0)).add_(1).mean(0) - 1


@method
def upcast(deltas):
    """Give float64."""
    return deltas.double().mean(0)


@method
def order_bias(deltas):
    """Let later models count more."""
    weight = torch.arange(1, len(deltas) + 1, dtype=deltas.dtype)
    return torch.tensordot(weight / weight.sum(), deltas, 1)


@method
def nothing_by_nothing(deltas):
    """Divide by a norm that can be zero."""
    length = deltas.flatten(1).norm(dim=1).mean()
    mean = deltas.mean(0)
    return mean / length * length


@method
def own_chance(deltas):
    """Draw from a generator of its own."""
    return deltas.mean(0) * (torch.rand(deltas.shape[1:]) < 2) + 1e-3 * deltas[0] * torch.rand(())


@method
def looks_around(deltas):
    """Say that entries stand alone, and look at the others."""
    mean = deltas.mean(0)
    return mean * (mean.abs() >= mean.abs().mean()) if mean.numel() else mean


@method
def no_tensor(deltas):
    """Give a number."""
    return float(deltas.sum())


@merge_method(Needs(base="required", equivariant=True), source="made up")
def turns(deltas):
    """Say that rotations do not matter, and treat entries one by one."""
    return deltas.mean(0).abs() * deltas.mean(0).sign().clamp(min=0)


WRONG = {
    kept_axis: "shape",
    upcast: "shape",
    no_tensor: "shape",
    in_place: "untouched",
    nothing_by_nothing: "finite",
    order_bias: "order",
    own_chance: "again",
    looks_around: "chunks",
    turns: "rotated",
}


def test_a_right_method_passes():
    check_merge_method(right)


@pytest.mark.parametrize("check", merge_method_checks(right), ids=str)
def test_checks_are_parameters(check):
    check()


@pytest.mark.parametrize("function", WRONG, ids=lambda function: function.__name__)
def test_mistakes_are_found(function):
    with pytest.raises(BrokenPromise, match=f"{function.__name__} breaks the promise"):
        check_merge_method(function)


@pytest.mark.parametrize("function", WRONG, ids=lambda function: function.__name__)
def test_the_promise_is_named(function):
    found = []
    for check in merge_method_checks(function):
        try:
            check()
        except BrokenPromise as problem:
            found.append(check.promise)
            assert str(problem).count(".") >= 1 and "models of shape" in str(problem)
        except (RuntimeError, TypeError, AttributeError):
            pass  # a result that is no tensor breaks the checks of its numbers too
    assert WRONG[function] in found


def test_what_is_declared_is_not_asked_for():
    @merge_method(
        Needs(base="required", scope="element", breaks={"single": "it doubles", "same": "it doubles"}),
        source="made up",
    )
    def doubles(deltas):
        """Add twice."""
        return 2 * deltas.mean(0)

    check_merge_method(doubles)


def test_a_function_without_the_decorator():
    with pytest.raises(BrokenPromise, match="lacks the decorator merge_method"):
        check_merge_method(torch.mean)


def test_one_place():
    with pytest.raises(BrokenPromise, match=r"order_bias .* \(2 models of shape \[3\]\)"):
        check_promise(order_bias, "order", shape=(3,), models=2)
