"""`umaf merge`: merge checkpoints and adapters by a recipe."""

from __future__ import annotations

import json
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from umaf.cli.changed import LIMIT, EvaluateOption, LimitOption
from umaf.cli.options import ConfigOption, JsonOption, settle
from umaf.cli.tables import show_change
from umaf.errors import ConfigError

if TYPE_CHECKING:
    from umaf.merging.planning.jobs import Plan

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class MergeConfig(BaseModel):
    """What `umaf merge` does."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    recipe: Path
    out: Path | None = None
    dry_run: bool = False
    workers: int | None = None
    resume: bool = False
    engine: Literal["local", "ray"] = "local"
    allow_pickle: bool = False
    shard_size: str = "5GB"
    seed: int | None = None
    rank: str | None = None
    evaluate: tuple[str, ...] = ()
    evaluate_limit: int = LIMIT


def merge(
    ctx: typer.Context,
    recipe: Annotated[Path | None, typer.Argument(help="YAML: mergekit's form, or umaf's own.")] = None,
    out: Annotated[Path | None, typer.Argument(help="A folder that is not there yet, or empty.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; merge nothing.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Tensors merged at a time. [default: one per core]")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from an interrupted merge.")] = False,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="Threads of this process, or a Ray cluster.")
    ] = "local",
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read .bin and .pt files too (weights only).")
    ] = False,
    shard_size: Annotated[str, typer.Option(help="Largest file of the result: 5GB, 500MB.")] = "5GB",
    seed: Annotated[int | None, typer.Option(help="Of methods that draw. [default: the recipe's]")] = None,
    rank: Annotated[
        str | None, typer.Option(help="Where only LoRA folders are merged: of the result. [default: auto]")
    ] = None,
    evaluate: EvaluateOption = None,
    evaluate_limit: LimitOption = LIMIT,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Merge checkpoints and adapters by a recipe into a folder that transformers loads, or LoRAs into a LoRA."""
    settings = settle(MergeConfig, ctx)
    if loras(settings, as_json=as_json):
        return
    if settings.dry_run:
        from umaf.merging.stages import plan_merge

        plan, rest = plan_merge(
            settings.recipe,
            settings.out,
            resume=settings.resume,
            allow_pickle=settings.allow_pickle,
            seed=settings.seed,
        )
        found = {**summary(plan), "later": [one.name or one.method for one in rest]}
        print(json.dumps(found, indent=2)) if as_json else show(found, Console())
        return
    _check(settings)
    began = time.perf_counter()
    folder = make(settings, quiet=as_json)
    seconds = round(time.perf_counter() - began, 3)
    if not as_json:
        Console().print(f"{escape(str(folder))} was made in {seconds:.1f} s.", highlight=False)
    numbers = _measured(settings, folder, seconds, as_json=as_json) if settings.evaluate else {}
    if as_json:
        print(json.dumps({"out": str(folder), "seconds": seconds, **numbers}))


def _check(settings: MergeConfig) -> None:
    """Stop at a task that is nowhere before anything is merged."""
    if settings.evaluate:
        from umaf.cli.changed import check_tasks
        from umaf.evaluation.change import Asked

        check_tasks(settings.evaluate, Asked())


def _measured(settings: MergeConfig, folder: Path, seconds: float, *, as_json: bool) -> dict[str, Any]:
    """Score what was merged against its base, and write the record into its folder."""
    from umaf.cli.changed import measured_merge, now, write_change
    from umaf.cli.opening import stages
    from umaf.evaluation.change import Asked, change_numbers
    from umaf.evaluation.record import plain

    began = now()
    asked = Asked(settings.evaluate_limit, settings.seed or 0)
    with stages(quiet=as_json) as say:
        change, experts = measured_merge(folder, settings.evaluate, asked, say)
    config = settings.model_dump(mode="json")
    more = {"experts": experts, "seconds": seconds}
    write_change(folder, "merged", change, config=config, more=more, began=began)
    if not as_json:
        show_change(Console(), change)
    return {"change": plain(change_numbers(change)), "experts": plain(experts)}


def make(settings: MergeConfig, *, quiet: bool) -> Path:
    """Do what the command does, showing how far it is."""
    from umaf.merging.stages import merge as run

    if settings.out is None:
        raise ConfigError(
            "umaf merge needs a folder to write to; name it after the recipe, or ask for --dry-run."
        )
    with progress(quiet=quiet) as report:
        return run(
            settings.recipe,
            settings.out,
            workers=settings.workers,
            resume=settings.resume,
            engine=settings.engine,
            shard_bytes=size_of(settings.shard_size),
            allow_pickle=settings.allow_pickle,
            seed=settings.seed,
            progress=report,
        )


def loras(settings: MergeConfig, *, as_json: bool) -> bool:
    """Do what the command does where nothing but LoRA folders is merged; False where models are."""
    from umaf.merging.recipes.read import read_stages

    recipes = read_stages(settings.recipe)
    if not recipes[-1].of_loras and not (settings.dry_run and recipes[0].of_loras):
        if settings.rank is not None:
            raise ConfigError("--rank is for recipes whose models are all LoRA folders; leave it out.")
        return False
    if settings.evaluate:
        raise ConfigError(
            "--evaluate is for merged models; score a merged LoRA with umaf evaluate MODEL --adapter DIR "
            "--against MODEL."
        )
    from umaf.cli.merged_lora import run

    run(recipes, settings, as_json=as_json)
    return True


def size_of(text: str) -> int:
    """Read a number of bytes.

    Raises:
        ConfigError: it is none.

    Example:
        >>> size_of("5GB"), size_of("1.5 M"), size_of("300")
        (5000000000, 1500000, 300)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)B?\s*", text.upper())
    size = int(float(found[1]) * _UNITS[found[2]]) if found else 0
    if size < 1:
        raise ConfigError(f"--shard-size must be a size such as 5GB or 500MB, got {text!r}.")
    return size


def summary(plan: Plan) -> dict[str, Any]:
    """Say what a plan will do, in numbers."""
    from umaf.merging.running.execute import cores

    rules = Counter(job.method for job in plan.jobs)
    return {
        "method": plan.recipe.method,
        "models": [str(one.ref) for one in plan.models],
        "donor": str(plan.models[plan.donor].ref),
        "tensors": len(plan.jobs),
        "parameters": sum(math.prod(job.shape) for job in plan.jobs),
        "rules": dict(rules.most_common()),
        "bytes_read": plan.bytes_read,
        "bytes_written": plan.bytes_written,
        "peak_memory": plan.peak_memory,
        "workers": cores(),
        "notes": list(plan.notes),
    }


def show(found: dict[str, Any], console: Console) -> None:
    """Print the plan for people."""
    table = Table(show_header=False, title=escape(f"plan of {found['method']}"))
    rows = {
        "models": "\n".join(found["models"]),
        "config and tokenizer of": found["donor"],
        "tensors": f"{found['tensors']:,} ({found['parameters']:,} parameters)",
        "by": ", ".join(f"{name} ({count:,})" for name, count in found["rules"].items()),
        "read": _bytes(found["bytes_read"]),
        "written": _bytes(found["bytes_written"]),
        "memory, at most": f"{_bytes(found['peak_memory'])} for each worker ({found['workers']} by default)",
    }
    for name, value in rows.items():
        table.add_row(name, escape(value))
    console.print(table)
    for note in found["notes"]:
        console.print(f"note: {escape(note)}", highlight=False)
    for name in found["later"]:
        console.print(f"{escape(name)} is planned when the stages before it are made.", highlight=False)


def _bytes(count: int) -> str:
    size, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.3g} {units[0]}"


@contextmanager
def progress(*, quiet: bool) -> Iterator[Callable[[str, int], None] | None]:
    """Show how far a merge is, on a terminal only."""
    console = Console(stderr=True, quiet=quiet)
    if quiet or not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,} entries"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("merge", total=None)

        def report(what: str, entries: int) -> None:
            bar.update(task, advance=entries, description=escape(what[-48:]))

        yield report
