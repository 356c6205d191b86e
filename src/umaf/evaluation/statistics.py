"""Intervals by the bootstrap, and recovery.

One idea serves all of them. Every statistic here is a function of a few sums, so a resample
needs no copied data: draw how often each unit is taken (a multinomial count), multiply the
counts with the units' sums, and read the statistic off the result. A unit is one text, one
cell of a table, or one whole group (a capability) where the results inside a group hang
together and would otherwise make the interval too narrow.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 6, 8 and 13
(percentile intervals).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from umaf.errors import NumericalError
from umaf.seeds import derive

LEAST_GAIN = 0.03
"""Where the oracle gains less than this over the bare target, recovery is noise over noise."""

_BLOCK = 4_000_000
"""Counts drawn at once; keeps the memory of a bootstrap under about 100 MB."""


@dataclass(frozen=True)
class Interval:
    """A number with its interval; `n` is how many texts, cells or groups it rests on.

    `low` and `high` are NaN where the data say nothing about the spread (a single unit).

    Example:
        >>> Interval(0.8, 0.7, 0.9, 100).low
        0.7
    """

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are drawn: how sure, how many resamples, and from which seed.

    Example:
        >>> Bootstrap().confidence
        0.95
    """

    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1 or self.resamples < 1:
            raise NumericalError(
                f"A bootstrap needs a confidence between 0 and 1 and at least one resample, got "
                f"{self.confidence} and {self.resamples}; the defaults are 0.95 and 2000."
            )


_DEFAULT = Bootstrap()


def mean_interval(
    values: ArrayLike, *, groups: Sequence[str] | None = None, bootstrap: Bootstrap = _DEFAULT
) -> Interval:
    """Give a mean and its bootstrap interval.

    Args:
        values: numbers or booleans, `[item]`.
        groups: a group name per item; whole groups are then drawn (cluster bootstrap), for
            instance capabilities, and `n` counts the groups.
        bootstrap: confidence, number of resamples and seed.

    Returns:
        The mean over items with its percentile interval.

    Raises:
        NumericalError: no values, a value that is not finite, or lists of different lengths.

    Example:
        >>> mean_interval([1, 1, 0, 1]).value
        0.75
    """
    return _interval([values], lambda sums: sums[..., 0] / sums[..., -1], groups=groups, bootstrap=bootstrap)


def ratio_interval(
    over: ArrayLike,
    under: ArrayLike,
    *,
    groups: Sequence[str] | None = None,
    bootstrap: Bootstrap = _DEFAULT,
) -> Interval:
    """Give the ratio of two means and its paired bootstrap interval.

    The same items are drawn for both means, so what they share cancels.

    Args:
        over: numbers above the line, `[item]`.
        under: numbers below the line, same items in the same order.
        groups: a group name per item; whole groups are then drawn.
        bootstrap: confidence, number of resamples and seed.

    Returns:
        `mean(over) / mean(under)`; the bounds are NaN where more than the interval's tails of
        the resamples leave a mean below the line that is not above zero.

    Raises:
        NumericalError: the mean below the line is not above zero, or unusable values.

    Example:
        >>> ratio_interval([1.0, 2.0], [2.0, 4.0]).value
        0.5
    """
    if np.sum(_column(under)) <= 0:
        raise NumericalError(
            f"A ratio of means needs a mean above zero below the line, got "
            f"{float(np.mean(_column(under))):.3g}; check which way round the two lists are."
        )
    return _interval(
        [over, under],
        lambda sums: _divide(sums[..., 0], sums[..., 1]),
        groups=groups,
        bootstrap=bootstrap,
    )


@dataclass(frozen=True)
class Difference(Interval):
    """A difference of two means with its interval, and the p of there being none."""

    p: float = 1.0


def difference_interval(
    first: tuple[ArrayLike, ArrayLike | None],
    second: tuple[ArrayLike, ArrayLike | None],
    *,
    bootstrap: Bootstrap = _DEFAULT,
) -> Difference:
    """Give the difference of two means over the same items, its paired interval, and a two-sided p.

    The p is that of the bootstrap centred on no difference: the share of resamples whose distance from the difference
    found is at least that difference (Efron and Tibshirani, 1993, algorithm 16.2), one resample added on both sides so
    that it is never 0.

    Args:
        first: numbers `[item]`, and what each counts (None: all alike); the mean is sum of numbers / sum of counts.
        second: the same of the other.
        bootstrap: confidence, number of resamples and seed.

    Returns:
        `mean(first) - mean(second)`.

    Raises:
        NumericalError: unusable values, or lists of different lengths.

    Example:
        >>> difference_interval(([1.0, 2.0, 4.0], None), ([1.0, 1.0, 1.0], None)).value
        1.3333333333333335
    """
    columns = []
    for numbers, counts in (first, second):
        columns += [_column(numbers), np.ones(len(_column(numbers))) if counts is None else _column(counts)]

    def statistic(sums: np.ndarray) -> np.ndarray:
        return _divide(sums[..., 0], sums[..., 1]) - _divide(sums[..., 2], sums[..., 3])

    found = _interval(columns, statistic, groups=None, bootstrap=bootstrap)
    apart = np.abs(statistic(_resampled(_sums(columns, None), bootstrap)) - found.value)
    # Rounding must not make equal differences unequal.
    extreme = int(np.sum(apart >= abs(found.value) * (1 - 1e-9)))
    return Difference(found.value, found.low, found.high, found.n, (extreme + 1) / (bootstrap.resamples + 1))


def recovery(adapted: float, bare: float, oracle: float) -> float | None:
    """Give the share of the oracle's gain over the bare target that an adapter reaches.

    Args:
        adapted: score of the target with the adapter.
        bare: score of the target without it.
        oracle: score of the target with a LoRA fine-tuned on the labels.

    Returns:
        `(adapted - bare) / (oracle - bare)`, or None where the oracle gains less than
        0.03: a small gain below the line makes the ratio mean nothing.

    Example:
        >>> round(recovery(0.8, 0.5, 0.9), 2)
        0.75
        >>> recovery(0.8, 0.79, 0.80) is None
        True
    """
    # Scores are shares of a few hundred texts; the slack is for 0.53 - 0.50 in binary.
    if oracle - bare < LEAST_GAIN - 1e-9:
        return None
    return (adapted - bare) / (oracle - bare)


def recovery_interval(
    adapted: ArrayLike,
    bare: ArrayLike,
    oracle: ArrayLike,
    *,
    groups: Sequence[str] | None = None,
    bootstrap: Bootstrap = _DEFAULT,
) -> Interval | None:
    """Give recovery and its paired bootstrap interval.

    The items are texts (each entry says whether that text was answered rightly) or cells of a
    table (each entry a score); all three lists hold the same items in the same order.

    Args:
        adapted: per item, the target with the adapter, `[item]`.
        bare: per item, the target without it, `[item]`.
        oracle: per item, the target with a LoRA fine-tuned on the labels, `[item]`.
        groups: a group name per item; whole groups are then drawn.
        bootstrap: confidence, number of resamples and seed.

    Returns:
        Recovery of the means, or None where the oracle gains less than 0.03. The bounds are
        NaN where too many resamples show no gain of the oracle at all.

    Raises:
        NumericalError: unusable values, or lists of different lengths.

    Example:
        >>> recovery_interval([1, 1, 0, 1], [0, 1, 0, 0], [1, 1, 1, 1]).value
        0.6666666666666666
    """
    columns = [_column(adapted), _column(bare), _column(oracle)]
    means = [float(np.mean(column)) for column in columns]
    if recovery(means[0], means[1], means[2]) is None:
        return None
    return _interval(
        columns,
        lambda sums: _divide(sums[..., 0] - sums[..., 1], sums[..., 2] - sums[..., 1]),
        groups=groups,
        bootstrap=bootstrap,
    )


def _interval(
    columns: Sequence[ArrayLike],
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    groups: Sequence[str] | None,
    bootstrap: Bootstrap,
) -> Interval:
    """Apply `statistic` to the sums `[..., column]` (the last one counts items) and resample."""
    sums = _sums([_column(column) for column in columns], groups)
    value = float(statistic(sums.sum(axis=0)))
    drawn = statistic(_resampled(sums, bootstrap))
    tail = (1 - bootstrap.confidence) / 2
    # A resample without a value could lie anywhere: more of them than a tail holds, and no
    # bound can be stood by.
    undefined = float(np.mean(~np.isfinite(drawn)))
    if len(sums) == 1 or undefined > tail:
        return Interval(value, float("nan"), float("nan"), len(sums))
    low, high = np.quantile(drawn[np.isfinite(drawn)], [tail, 1 - tail])
    return Interval(value, float(low), float(high), len(sums))


def _column(values: ArrayLike) -> np.ndarray:
    """Read one list of finite numbers as float64 `[item]`."""
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1 or not column.size or not np.isfinite(column).all():
        raise NumericalError(
            f"An interval needs a list of finite numbers, got shape {column.shape} with "
            f"{int(np.sum(~np.isfinite(column)))} that are not finite; leave out what was not "
            f"measured, and say so, before asking for an interval."
        )
    return column


def _sums(columns: Sequence[np.ndarray], groups: Sequence[str] | None) -> np.ndarray:
    """Sum each column within each unit: float64 `[unit, column + 1]`, last the unit's items."""
    sizes = {len(column) for column in columns} | ({len(groups)} if groups is not None else set())
    if len(sizes) != 1:
        raise NumericalError(
            f"A paired interval needs lists of one length, got lengths {sorted(sizes)}; pass the "
            f"same items in the same order."
        )
    table = np.stack([*columns, np.ones(sizes.pop())], axis=1)
    if groups is None:
        return table
    names, unit = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    sums = np.zeros((len(names), table.shape[1]))
    np.add.at(sums, unit, table)
    return sums


def _resampled(sums: np.ndarray, bootstrap: Bootstrap) -> np.ndarray:
    """Draw units with replacement: float64 `[resample, column + 1]`."""
    units = len(sums)
    random = np.random.default_rng(derive(bootstrap.seed, "bootstrap"))
    step = max(1, _BLOCK // units)
    parts = [
        random.multinomial(units, np.full(units, 1 / units), size=min(step, bootstrap.resamples - s)) @ sums
        for s in range(0, bootstrap.resamples, step)
    ]
    return np.concatenate(parts)


def _divide(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    """Divide; NaN where what is below the line is not above zero."""
    safe = np.where(under > 0, under, 1.0)
    return np.where(under > 0, over / safe, np.nan)
