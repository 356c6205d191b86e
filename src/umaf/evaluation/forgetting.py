"""What a model lost elsewhere when it was given something new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from umaf.errors import TaskError
from umaf.evaluation.evaluate import Score, evaluate
from umaf.evaluation.statistics import Bootstrap, Interval, mean_interval
from umaf.models.model import Model
from umaf.readout.generate import bits_per_byte
from umaf.tasks.task import Task


@dataclass(frozen=True)
class Lost:
    """One other task, before and after.

    Attributes:
        task: its name.
        before: score without the adapter.
        after: score with it, on the same texts.
        drop: before - after, with an interval over texts; below zero where the model gained.
    """

    task: str
    before: Score
    after: Score
    drop: Interval


@dataclass(frozen=True)
class Forgetting:
    """What changed outside the capability that was moved.

    Attributes:
        tasks: each other task.
        mean_drop: mean of their drops, with an interval over tasks.
        bits_before: bits per byte of plain text without the adapter; None for a model that writes none.
        bits_after: the same with it.
        bits_change: after - before; above zero where text became harder to predict.
    """

    tasks: tuple[Lost, ...]
    mean_drop: Interval
    bits_before: float | None
    bits_after: float | None
    bits_change: float | None


def forgetting(
    before: Model,
    after: Model,
    tasks: Sequence[Task],
    *,
    texts: Sequence[str] = (),
    limit: int | None = None,
    seed: int = 0,
) -> Forgetting:
    """Measure what a model lost on other tasks and in plain text.

    Args:
        before: the bare target.
        after: the target with its adapter.
        tasks: tasks that the adapter was not made for.
        texts: plain text for bits per byte; left out, or for a model without a head that writes,
            those are None.
        limit: at most so many texts per task.
        seed: draws the texts and the intervals.

    Returns:
        Drops by task, their mean, and the change in bits per byte.

    Raises:
        TaskError: there is no other task, or a task's labels cannot be read from this model.

    Example:
        >>> callable(forgetting)  # forgetting(bare, adapted, [load_task("made/tense")], texts=plain)
        True
    """
    if not tasks:
        raise TaskError("Forgetting is measured on other tasks, but none was given; give at least one.")
    lost = tuple(_lost(before, after, task, limit=limit, seed=seed) for task in tasks)
    drops = [one.drop.value for one in lost]
    bits: tuple[float, float] | None = None
    if texts and before.head in ("lm", "seq2seq"):
        bits = (
            bits_per_byte(before, texts, truncate=True),
            bits_per_byte(after, texts, truncate=True),
        )
    return Forgetting(
        tasks=lost,
        mean_drop=mean_interval(drops, bootstrap=Bootstrap(seed=seed)),
        bits_before=bits[0] if bits else None,
        bits_after=bits[1] if bits else None,
        bits_change=bits[1] - bits[0] if bits else None,
    )


def _lost(before: Model, after: Model, task: Task, *, limit: int | None, seed: int) -> Lost:
    first, then = (evaluate(model, task, limit=limit, seed=seed) for model in (before, after))
    paired = np.array(first.correct, dtype=float) - np.array(then.correct, dtype=float)
    return Lost(task.name, first, then, mean_interval(paired, bootstrap=Bootstrap(seed=seed)))
