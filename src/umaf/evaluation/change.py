"""What a transfer or a merge brought, and what it cost elsewhere: one model before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from umaf.errors import TaskError, UmafError
from umaf.evaluation.assess import Result, assess
from umaf.evaluation.compare import Comparison, compare, holm
from umaf.evaluation.harness import PREFIX, assess_harness
from umaf.evaluation.statistics import Bootstrap, Interval, mean_interval
from umaf.models.model import Model
from umaf.tasks.door import load_measured

ELSEWHERE = (
    "made/sentiment",
    "made/topic",
    "made/question",
    "made/which_kind",
    "made/agreement",
    "made/prose",
)
"""What every transfer and merge is asked besides its own tasks: generated here, so that nothing is needed for it."""


@dataclass(frozen=True)
class Asked:
    """How tasks are asked.

    Attributes:
        limit: at most so many items of each.
        seed: draws them, and the intervals.
        data: the folder of real tasks.
        split: which texts of a task that has splits.
    """

    limit: int | None = None
    seed: int = 0
    data: str | None = None
    split: Any = "test"


@dataclass(frozen=True)
class Change:
    """One model, before and after.

    Attributes:
        before: results of the model as it was.
        after: results of the changed model, in the same order.
        wanted: how it changed on the tasks it was changed for.
        elsewhere: how it changed on the others.
        forgotten: mean loss elsewhere in normalised score (chance 0, perfect 1), with an interval over tasks; None
            where nothing else could be asked.
        unasked: task -> why this model could not be asked it.
    """

    before: tuple[Result, ...]
    after: tuple[Result, ...]
    wanted: tuple[Comparison, ...]
    elsewhere: tuple[Comparison, ...]
    forgotten: Interval | None
    unasked: dict[str, str]


def ask(model: Model, name: str, asked: Asked) -> list[Result]:
    """Score a model on a task by its name, whoever has it.

    Args:
        model: any opened model.
        name: as `load_measured` takes it, or "lm-eval:NAME"; a group of the harness gives several results.
        asked: how.

    Raises:
        TaskError: no such task, or this model cannot answer it.

    Example:
        >>> from umaf.models import open_model
        >>> ask(open_model("zoo:gpt2-1m"), "made/agreement", Asked(limit=4))[0].metric
        'accuracy'
    """
    if name.startswith(PREFIX):
        return assess_harness(model, name, limit=asked.limit, seed=asked.seed)
    task = load_measured(name, data=asked.data, seed=asked.seed)
    return [assess(model, task, split=asked.split, limit=asked.limit, seed=asked.seed)]


def measure_change(before: Model, after: Model, tasks: Sequence[str], asked: Asked) -> Change:
    """Ask a model before and after a transfer or a merge: the tasks it was for, and a fixed list of others.

    Args:
        before: the bare target, or the base of a merge.
        after: the target with its adapter, or the merged model.
        tasks: what it was for; a mistake here is an error.
        asked: how; a task elsewhere that this kind of model cannot answer is left out, and `unasked` says why.

    Raises:
        TaskError: no task was given, or one cannot be asked.

    Example:
        >>> from umaf.models import open_model
        >>> model = open_model("zoo:llama-1m")
        >>> measure_change(model, model, ["made/tense"], Asked(limit=4)).forgotten.value
        0.0
    """
    if not tasks:
        raise TaskError(
            "A change is measured on the tasks it was for, but none was given; name at least one."
        )
    first, then, unasked = [], [], {}
    wanted: list[Comparison] = []
    elsewhere: list[Comparison] = []
    bootstrap = Bootstrap(seed=asked.seed)
    for name in dict.fromkeys((*tasks, *ELSEWHERE)):
        own = name in tasks
        try:
            pair = [ask(model, name, asked) for model in (before, after)]
        except UmafError as problem:
            if own:
                raise
            unasked[name] = str(problem)
            continue
        first += pair[0]
        then += pair[1]
        rows = [
            compare(one, other, bootstrap=bootstrap)
            for one, other in zip(*pair, strict=True)
            if one.items and other.items
        ]
        (wanted if own else elsewhere).extend(rows)
    corrected = holm([*wanted, *elsewhere])
    wanted, elsewhere = corrected[: len(wanted)], corrected[len(wanted) :]
    losses = [one.lost for one in elsewhere if one.lost is not None]
    forgotten = mean_interval(losses, bootstrap=bootstrap) if losses else None
    return Change(tuple(first), tuple(then), tuple(wanted), tuple(elsewhere), forgotten, unasked)


def change_numbers(change: Change) -> dict[str, Any]:
    """Write a change as the numbers of a record."""
    lost = change.forgotten
    return {
        "results": [*map(result_row, (*change.before, *change.after))],
        "wanted": [*map(comparison_row, change.wanted)],
        "elsewhere": [*map(comparison_row, change.elsewhere)],
        "forgotten": None
        if lost is None
        else {"value": lost.value, "low": lost.low, "high": lost.high, "n": lost.n},
        "unasked": change.unasked,
    }


def result_row(result: Result) -> dict[str, Any]:
    """Write a result as a row of a record; rights and wrongs become one line of 1 and 0.

    Example:
        >>> result_row(Result("m", "t", "accuracy", 0.5, 0.0, 1.0, 2, 0.5, 1.0, (1.0, 0.0)))["items"]
        '10'
    """
    names = ("model", "task", "metric", "value", "low", "high", "n", "truncated", "chance", "perfect")
    row: dict[str, Any] = {name: getattr(result, name) for name in names}
    found = result.normalised
    row["normalised"] = found and {"value": found.value, "low": found.low, "high": found.high}
    row["also"] = dict(result.also)
    binary = not result.weights and set(result.items) <= {0.0, 1.0}
    row["items"] = (
        "".join("1" if item else "0" for item in result.items)
        if binary
        else [round(item, 4) for item in result.items]
    )
    return row


def comparison_row(one: Comparison) -> dict[str, Any]:
    """Write a comparison as a row of a record."""
    names = ("task", "first", "second", "gain", "low", "high", "lost", "n", "p", "test", "corrected")
    return {name: getattr(one, name) for name in names}
