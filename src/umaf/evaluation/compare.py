"""Two models on the same items: how far apart they are, and whether that could be chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import binomtest

from umaf.errors import NumericalError
from umaf.evaluation.assess import Result
from umaf.evaluation.statistics import Bootstrap, difference_interval


@dataclass(frozen=True)
class Comparison:
    """What the second model does better than the first on one task.

    Attributes:
        task: what both were asked.
        first: the one compared with, such as the base.
        second: the other.
        gain: second - first, turned so that above zero is better, with its paired 95% interval.
        low: its lower end.
        high: its upper end.
        lost: first - second in the normalised score (chance 0, perfect 1); None where chance is not known.
        n: how many items.
        p: how likely a difference this large is where both are alike.
        test: how `p` was found: "McNemar" (exact) for right and wrong, "bootstrap" for other numbers.
        corrected: `p` after Holm's correction over the whole table; equal to `p` before it.
    """

    task: str
    first: str
    second: str
    gain: float
    low: float
    high: float
    lost: float | None
    n: int
    p: float
    test: str
    corrected: float


def compare(first: Result, second: Result, *, bootstrap: Bootstrap | None = None) -> Comparison:
    """Compare two results on the same items of a task, pair by pair.

    Args:
        first: the one compared with.
        second: the other.
        bootstrap: how intervals are drawn.

    Raises:
        NumericalError: they are not of the same items.

    Example:
        >>> one = Result("a", "t", "accuracy", 0.5, 0, 1, 4, 0.5, 1.0, (1, 0, 1, 0))
        >>> two = Result("b", "t", "accuracy", 1.0, 1, 1, 4, 0.5, 1.0, (1, 1, 1, 1))
        >>> found = compare(one, two)
        >>> found.gain, found.lost, found.p
        (0.5, -1.0, 0.5)
    """
    if first.task != second.task or len(first.items) != len(second.items):
        raise NumericalError(
            f"Two results are compared item by item, got {len(first.items)} of {first.task} and {len(second.items)} "
            f"of {second.task}; ask both models the same, with the same limit and seed."
        )
    way = 1.0 if second.perfect >= (second.chance or 0.0) else -1.0
    found = difference_interval(
        (second.items, second.weights or None), (first.items, first.weights or None),
        bootstrap=bootstrap or Bootstrap(),
    )  # fmt: skip
    ends = sorted((way * found.low, way * found.high)) if np.isfinite(found.low) else [np.nan, np.nan]
    binary = not first.weights and set(first.items) | set(second.items) <= {0.0, 1.0}
    p = mcnemar(first.items, second.items) if binary else found.p
    before, after = first.normalised, second.normalised
    lost = None if before is None or after is None else before.value - after.value
    gain = way * found.value
    test = "McNemar" if binary else "bootstrap"
    return Comparison(
        first.task, first.model, second.model, gain, ends[0], ends[1], lost, found.n, p, test, p
    )


def mcnemar(first: Sequence[float], second: Sequence[float]) -> float:
    """Give the exact two-sided p of McNemar's test: of the items on which two models differ, half should go each way.

    Source: McNemar, Psychometrika 12 (1947); the exact binomial form.

    Example:
        >>> round(mcnemar([1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1]), 4)
        0.0312
        >>> mcnemar([1, 0], [1, 0])
        1.0
    """
    one, other = np.asarray(first) > 0.5, np.asarray(second) > 0.5
    gained, lost = int(np.sum(other & ~one)), int(np.sum(one & ~other))
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Correct the p of a whole table, so that one false find anywhere in it stays as unlikely as each promises.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979): the k-th smallest of m is multiplied by m - k + 1, and
    none may be below one before it.

    Example:
        >>> rows = [Comparison("t", "a", "b", 0, 0, 0, 0, 9, p, "McNemar", p) for p in (0.01, 0.04, 0.03)]
        >>> [round(row.corrected, 2) for row in holm(rows)]
        [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(comparisons)), key=lambda place: comparisons[place].p)
    corrected = [0.0] * len(comparisons)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, comparisons[place].p * (len(comparisons) - rank)))
        corrected[place] = largest
    return [replace(one, corrected=p) for one, p in zip(comparisons, corrected, strict=True)]
