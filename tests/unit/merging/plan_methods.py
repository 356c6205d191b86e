"""Methods that stand in for those of the package where a test is about the planner and not about them."""

from __future__ import annotations

import pytest
from torch import Tensor

from umaf.merging.contract import Needs, PerModel, merge_method
from umaf.merging.planning import rules
from umaf.merging.registry import METHODS

_NONE = Needs(base="none")


@merge_method(_NONE, source="test")
def linear(weights: Tensor, *, weight: PerModel = 1.0, normalize: bool = True) -> Tensor:
    """Stand in."""
    return weights[0]


@merge_method(Needs(base="none", models=(2, 2)), source="test")
def slerp(weights: Tensor, *, t: float = 0.5) -> Tensor:
    """Stand in."""
    return weights[0]


@merge_method(Needs(base="none", models=(1, 1)), source="test")
def passthrough(weights: Tensor, *, scale: PerModel = 1.0) -> Tensor:
    """Stand in."""
    return weights[0]


@merge_method(Needs(base="required"), source="test")
def task_arithmetic(deltas: Tensor, *, weight: PerModel = 1.0, normalize: bool = False) -> Tensor:
    """Stand in."""
    return deltas[0]


@merge_method(Needs(base="optional"), source="test")
def free(rows: Tensor, *, steps: int = 3) -> Tensor:
    """Stand in."""
    return rows[0]


@merge_method(Needs(base="required", matrices=True, otherwise="mean"), source="test")
def spectral(deltas: Tensor, *, weight: PerModel = 1.0) -> Tensor:
    """Stand in."""
    return deltas[0]


@pytest.fixture
def stand_ins(monkeypatch):
    """Register the methods of this file, in the place of the package's of the same names."""
    own = {name: f"{__name__}:{name}" for name in ("linear", "slerp", "passthrough", "task_arithmetic")}
    own |= {name: f"{__name__}:{name}" for name in ("free", "spectral")}
    monkeypatch.setitem(METHODS.__dict__, "_sources", {**METHODS._sources, **own})
    _forget()
    yield
    _forget()


def _forget():
    """What was looked up before, or of these methods, must not be served to other tests."""
    rules._rule.cache_clear()
    rules._others.cache_clear()
