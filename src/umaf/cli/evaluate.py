"""`umaf evaluate`: score models, bare or with adapters, on tasks of any form."""

from __future__ import annotations

import json
import secrets
from dataclasses import replace
from datetime import datetime, timezone
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import Field, field_validator
from rich.console import Console

from umaf.cli.opening import ModelConfig, PickleOption, RemoteOption, opener, short, spread, stages
from umaf.cli.options import ConfigOption, DeviceOption, DtypeOption, JsonOption, SeedOption, settle

if TYPE_CHECKING:
    from umaf.evaluation.assess import Result
    from umaf.evaluation.compare import Comparison

Split = Literal["train", "validation", "test"]
Many = list[str] | None
NO_ADAPTER = "none"


class EvaluateConfig(ModelConfig):
    """What `umaf evaluate` does."""

    model: tuple[str, ...] = Field(min_length=1)
    task: tuple[str, ...] = Field(min_length=1)
    adapter: tuple[str, ...] = ()
    against: str | None = None
    split: Split = "test"
    limit: int | None = Field(default=None, ge=1)
    data: Path | None = None
    out: Path = Path("out/evaluate")

    @field_validator("model", "task", "adapter", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (str(value),) if isinstance(value, str | Path) else value


def evaluate(
    ctx: typer.Context,
    model: Annotated[
        list[str] | None, typer.Argument(help="Hub ids, folders, or zoo:NAME; one or more.")
    ] = None,
    task: Annotated[
        Many, typer.Option(metavar="NAME", help="A task, text:FILE or lm-eval:NAME; once for each.")
    ] = None,
    adapter: Annotated[
        Many,
        typer.Option(metavar="DIR", help="A PEFT folder: once for all models, or once for each, or none."),
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="BASE", help="Compare every model with this one: lost or gained.")
    ] = None,
    split: Annotated[Split, typer.Option(help="Which of a task's texts.")] = "test",
    limit: Annotated[int | None, typer.Option(help="At most so many texts, drawn by the seed.")] = None,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="The folder of real tasks.")] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the record of the run goes.")] = Path(
        "out/evaluate"
    ),
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
    """Score models, bare or with adapters, on tasks; with 95% intervals, and what is a real difference."""
    if list_them:
        from umaf.tasks.door import list_measured, list_tasks

        names = list_tasks(data) + list_measured(data)
        print(json.dumps(names, indent=2) if as_json else "\n".join(names))
        return
    settings = settle(EvaluateConfig, ctx)
    started = datetime.now(timezone.utc)
    with stages(quiet=as_json) as say:
        results, sizes = score(settings, say)
    comparisons = compared(results, settings)
    file = record(settings, results, comparisons, sizes=sizes, started=started)
    if as_json:
        print(json.dumps(_facts(settings, results, comparisons, file), indent=2))
        return
    from umaf.cli.tables import show_comparisons, show_results

    console = Console()
    show_results(console, results, f"{settings.split} texts")
    show_comparisons(console, comparisons)
    console.print(f"record: {file}", markup=False, highlight=False, soft_wrap=True)


def score(settings: EvaluateConfig, say) -> tuple[list[Result], dict[str, int]]:
    """Ask every model every task, without printing, and count its parameters; one model is in memory at a time."""
    from umaf.adapters import load_adapter
    from umaf.evaluation.change import Asked, ask

    data = None if settings.data is None else str(settings.data)
    asked = Asked(settings.limit, settings.seed, data, settings.split)
    adapters = spread("adapter", settings.adapter, len(settings.model), NO_ADAPTER)
    forms = list(zip(settings.model, adapters, strict=True))
    if settings.against is not None:
        forms = [
            (settings.against, NO_ADAPTER),
            *(one for one in forms if one != (settings.against, NO_ADAPTER)),
        ]
    _check(settings)
    results: list[Result] = []
    sizes: dict[str, int] = {}
    for name, adapter in forms:
        say(f"open {short(name)}")
        model = opener(settings)(name)
        if adapter != NO_ADAPTER:
            model = load_adapter(model, adapter)
        sizes[_label(name, adapter)] = model.parameters
        for task in settings.task:
            say(f"ask {short(name)} {task}")
            results += [replace(one, model=_label(name, adapter)) for one in ask(model, task, asked)]
    return results, sizes


def _check(settings: EvaluateConfig) -> None:
    """Stop at a task that is nowhere before any model is opened."""
    from umaf.evaluation.harness import PREFIX
    from umaf.tasks.door import load_measured

    for task in settings.task:
        if not task.startswith(PREFIX):
            load_measured(task, data=settings.data, seed=settings.seed)


def _label(name: str, adapter: str) -> str:
    return short(name) + ("" if adapter == NO_ADAPTER else f" with {short(adapter)}")


def compared(results: list[Result], settings: EvaluateConfig) -> list[Comparison]:
    """Compare every model with the base, or every two of them, task by task; corrected over the whole table."""
    from umaf.evaluation.compare import compare, holm
    from umaf.evaluation.statistics import Bootstrap

    found = []
    bootstrap = Bootstrap(seed=settings.seed)
    for task in dict.fromkeys(one.task for one in results):
        mine = [one for one in results if one.task == task and one.items]
        pairs = [(mine[0], other) for other in mine[1:]] if settings.against else combinations(mine, 2)
        found += [compare(one, other, bootstrap=bootstrap) for one, other in pairs]
    return holm(found)


def record(
    settings: EvaluateConfig,
    results: list[Result],
    comparisons: list[Comparison],
    *,
    sizes: dict[str, int],
    started: datetime,
) -> Path:
    """Write the record of a run under a name of its own."""
    from umaf.evaluation.change import comparison_row, result_row
    from umaf.evaluation.record import new_record, write_record

    numbers = {
        "results": [result_row(one) for one in results],
        "comparisons": [comparison_row(one) for one in comparisons],
        "against": None if settings.against is None else short(settings.against),
        "parameters": sizes,
    }
    chosen = settings.model_dump(mode="json", exclude={"out"})
    made = new_record("evaluate", config=chosen, numbers=numbers, seed=settings.seed, started=started)
    file = settings.out / f"{started:%Y-%m-%d-%H%M%S}-{secrets.token_hex(2)}.json"
    write_record(file, made)
    return file


def _facts(
    settings: EvaluateConfig, results: list[Result], comparisons: list[Comparison], file: Path
) -> dict[str, Any]:
    """Put a run together for JSON."""
    from umaf.evaluation.change import comparison_row, result_row
    from umaf.evaluation.record import plain

    rows = [{key: value for key, value in result_row(one).items() if key != "items"} for one in results]
    one_model = len(settings.model) == 1
    adapter = settings.adapter[0] if settings.adapter and settings.adapter[0] != NO_ADAPTER else None
    return plain(
        {
            "model": settings.model[0] if one_model else list(settings.model),
            "adapter": adapter if one_model else list(settings.adapter),
            "against": settings.against,
            "split": settings.split,
            "scores": rows,
            "comparisons": [comparison_row(one) for one in comparisons],
            "record": str(file),
        }
    )
