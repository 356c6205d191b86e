"""What a transfer or a merge brought and what it cost elsewhere, as their commands measure it when asked to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from umaf.evaluation.change import Asked, Change
    from umaf.models import Model

RECORD = "record.json"
LIMIT = 200

EvaluateOption = Annotated[
    list[str] | None,
    typer.Option(
        "--evaluate", metavar="TASK", help="Score before and after on this, and what was lost elsewhere."
    ),
]
LimitOption = Annotated[int, typer.Option("--evaluate-limit", min=1, help="Texts of each task, at most.")]


def check_tasks(tasks: Sequence[str], asked: Asked) -> None:
    """Stop at a task that is nowhere, before long work begins.

    Raises:
        TaskError: there is no such task here.
    """
    from umaf.evaluation.harness import PREFIX
    from umaf.tasks.door import load_measured

    for task in tasks:
        if not task.startswith(PREFIX):
            load_measured(task, data=asked.data, seed=asked.seed)


def measured_transfer(target: Model, folder: Path, tasks: Sequence[str], asked: Asked, say) -> Change:
    """Score a target with and without its new adapter."""
    from umaf.adapters import load_adapter
    from umaf.evaluation.change import measure_change

    say("ask the target without and with the adapter")
    after = load_adapter(target, folder)
    return measure_change(target, after, tasks, asked)


def measured_merge(folder: Path, tasks: Sequence[str], asked: Asked, say) -> tuple[Change, dict[str, Any]]:
    """Score a merged folder against the base of its recipe, and its other parents on the tasks.

    Returns:
        The change, and for every parent that could be opened alone its results by task.
    """
    from umaf.evaluation.change import ask, measure_change, result_row
    from umaf.models import open_model

    manifest = json.loads((folder / "umaf.json").read_text(encoding="utf-8"))
    parents = [str(one["model"]) for one in manifest["parents"]]
    base = manifest["recipe"].get("base")
    if base is None or base in manifest["recipe"].get("stages", {}):
        base = parents[0]
    say("ask the base and the merged model")
    change = measure_change(open_model(str(base)), open_model(folder), tasks, asked)
    experts = {}
    for place, parent in enumerate(parents):
        if parent != str(base) and "+" not in parent:
            say(f"ask parent {place + 1} of {len(parents)}")
            opened = open_model(parent)
            rows = [result_row(one) for task in tasks for one in ask(opened, task, asked)]
            experts[f"{place + 1} {Path(parent).name}"] = {row["task"]: row for row in rows}
    return change, experts


def write_change(
    folder: Path, kind: str, change: Change, *, config: dict[str, Any], more: dict[str, Any], began: datetime
) -> Path:
    """Write the record of a transfer or a merge into its folder."""
    from umaf.evaluation.change import change_numbers
    from umaf.evaluation.record import new_record, write_record

    numbers = {**change_numbers(change), **more}
    seed = int(config.get("seed") or 0)
    write_record(folder / RECORD, new_record(kind, config=config, numbers=numbers, seed=seed, started=began))
    return folder / RECORD


def now() -> datetime:
    """Give the time, in UTC."""
    return datetime.now(timezone.utc)
