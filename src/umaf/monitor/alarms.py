"""What looks wrong in the numbers of a job: NaN, a spread that vanishes, a loss that runs away."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np
from numpy.typing import ArrayLike

from umaf.errors import NumericalError

SPREAD = "spread"
"""Metrics of this name, or that end with it after a dot or slash, are variances: where one vanishes, all is alike."""
VANISHED = 0.01
"""A spread below this share of the largest of its first values is a collapse."""
FIRST = 8
RUNAWAY = 10.0
"""A loss this many times the median of its last values has run away."""
LAST = 20


class Alarms:
    """Watches the numbers of a run; every alarm is given once for a metric, until the metric is well again.

    Example:
        >>> alarms = Alarms()
        >>> alarms.watch("train", 1, {"loss": 2.0})
        []
        >>> alarms.watch("train", 2, {"loss": float("nan")})
        ['train: loss is not a number at step 2']
        >>> alarms.watch("train", 3, {"loss": float("nan")})
        []
    """

    def __init__(self) -> None:
        self._first: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._last: dict[tuple[str, str], deque[float]] = defaultdict(lambda: deque(maxlen=LAST))
        self._given: set[tuple[str, str, str]] = set()

    def watch(self, job: str, step: int, numbers: Mapping[str, float]) -> list[str]:
        """Look at the numbers of one step.

        Args:
            job: the job's name.
            step: its step.
            numbers: by name.

        Returns:
            A sentence for each new alarm.
        """
        found = []
        for name, value in numbers.items():
            where = (job, name)
            wrong = self._wrong(where, float(value))
            for kind in ("finite", "spread", "runaway"):
                key = (*where, kind)
                if kind not in wrong:
                    self._given.discard(key)
                elif key not in self._given:
                    self._given.add(key)
                    found.append(f"{job}: {name} {wrong[kind]} at step {step}")
        return found

    def _wrong(self, where: tuple[str, str], value: float) -> dict[str, str]:
        """Say what is wrong with a value, by the kind of alarm, and remember it."""
        if not math.isfinite(value):
            return {"finite": "is not a number" if math.isnan(value) else "is infinite"}
        first, last, wrong = self._first[where], self._last[where], {}
        if _ends(where[1], SPREAD):
            reference = max(first, default=0.0)
            if value <= VANISHED * reference or (reference == 0.0 and value == 0.0):
                wrong["spread"] = f"has collapsed ({value:.2g}, was {reference:.2g})"
            if len(first) < FIRST:
                first.append(value)
        elif _ends(where[1], "loss"):
            usual = median(last) if len(last) >= LAST // 2 else math.inf
            if 0 < RUNAWAY * usual < value:
                wrong["runaway"] = f"ran away ({value:.3g}, was {usual:.3g})"
            last.append(value)
        return wrong


def _ends(name: str, word: str) -> bool:
    return name.replace("/", ".").split(".")[-1] == word


def spread(vectors: ArrayLike) -> float:
    """Give the variance of vectors as a share of their mean squared length: 0 where all are the same, at most 1.

    Args:
        vectors: fingerprints or outputs, `[item, number]`, two or more.

    Raises:
        NumericalError: fewer than two vectors.

    Example:
        >>> spread([[1.0, 0.0], [1.0, 0.0]]), spread([[1.0, 0.0], [-1.0, 0.0]])
        (0.0, 1.0)
    """
    table = np.asarray(vectors, dtype=np.float64)
    if table.ndim != 2 or len(table) < 2:
        raise NumericalError(
            f"A spread needs two or more vectors, got shape {table.shape}; pass one row each."
        )
    length = float(np.mean(np.sum(table**2, axis=1)))
    return float(np.mean(np.sum((table - table.mean(axis=0)) ** 2, axis=1)) / length) if length else 0.0


def collapsed(vectors: ArrayLike, names: Sequence[str]) -> str | None:
    """Say in a sentence that fingerprints of different models are all the same; None where they are not.

    Example:
        >>> collapsed([[1.0, 0.0], [1.0, 0.0]], ["a", "b"])
        '2 fingerprints have collapsed: their spread is 0 of their length'
    """
    value = spread(vectors)
    if math.isfinite(value) and value > 1e-4:
        return None
    if not math.isfinite(value):
        return f"{len(names)} fingerprints hold NaN or infinity"
    return f"{len(names)} fingerprints have collapsed: their spread is {value:.2g} of their length"
