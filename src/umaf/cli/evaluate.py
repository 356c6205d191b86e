"""`umaf evaluate`: score a model, bare or with an adapter, on tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from pydantic import Field
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from umaf.cli.opening import ModelConfig, PickleOption, RemoteOption, opener, short, stages
from umaf.cli.options import ConfigOption, DeviceOption, DtypeOption, JsonOption, SeedOption, settle

if TYPE_CHECKING:
    from umaf.evaluation.evaluate import Score

Split = Literal["train", "validation", "test"]


class EvaluateConfig(ModelConfig):
    """What `umaf evaluate` does."""

    model: str
    task: tuple[str, ...] = Field(min_length=1)
    adapter: Path | None = None
    split: Split = "test"
    limit: int | None = Field(default=None, ge=1)
    data: Path | None = None


def evaluate(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Argument(help="A hub id, a folder, or zoo:NAME.")] = None,
    task: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A task's name; once for each task.")
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A PEFT folder to put on the model.")
    ] = None,
    split: Annotated[Split, typer.Option(help="Which of a task's texts.")] = "test",
    limit: Annotated[int | None, typer.Option(help="At most so many texts, drawn by the seed.")] = None,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="The folder of real tasks.")] = None,
    list_them: Annotated[
        bool, typer.Option("--list", help="List the tasks that can be found here, and stop.")
    ] = False,
    allow_pickle: PickleOption = False,
    trust_remote_code: RemoteOption = False,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Score a model, bare or with an adapter, on tasks; with 95% bootstrap intervals over texts."""
    if list_them:
        from umaf.tasks.door import list_tasks

        names = list_tasks(data)
        print(json.dumps(names, indent=2) if as_json else "\n".join(names))
        return
    settings = settle(EvaluateConfig, ctx)
    with stages(quiet=as_json) as say:
        scores = score(settings, say)
    if as_json:
        about = {
            "model": settings.model,
            "adapter": None if settings.adapter is None else str(settings.adapter),
        }
        print(
            json.dumps({**about, "split": settings.split, "scores": [_row(one) for one in scores]}, indent=2)
        )
    else:
        show(scores, settings, Console())


def score(settings: EvaluateConfig, say) -> list[Score]:
    """Do what the command does, without printing."""
    from umaf.adapters import load_adapter
    from umaf.evaluation.evaluate import evaluate as ask
    from umaf.tasks.door import load_task

    tasks = [load_task(name, data=settings.data, seed=settings.seed) for name in settings.task]
    say(f"open {settings.model}")
    model = opener(settings)(settings.model)
    if settings.adapter is not None:
        model = load_adapter(model, settings.adapter)
    scores = []
    for one in tasks:
        say(f"ask {one.name}")
        scores.append(ask(model, one, split=settings.split, limit=settings.limit, seed=settings.seed))
    return scores


def show(scores: list[Score], settings: EvaluateConfig, console: Console) -> None:
    """Print scores as a table."""
    name = short(settings.model)
    if settings.adapter is not None:
        name += f" with {short(str(settings.adapter))}"
    table = Table("task", "metric", title=f"{escape(name)}, {settings.split} texts", title_justify="left")
    for heading in ("score", "95% interval", "texts"):
        table.add_column(heading, justify="right")
    for one in scores:
        interval = f"{one.low:.3f} to {one.high:.3f}"
        table.add_row(escape(one.task), one.metric, f"{one.value:.3f}", interval, str(one.n))
    console.print(table)
    for one in scores:
        if one.truncated:
            console.print(f"{one.truncated} of {one.n} texts of {escape(one.task)} were cut to the window.")


def _row(one: Score) -> dict:
    names = ("task", "metric", "value", "low", "high", "n", "truncated")
    return {name: getattr(one, name) for name in names}
