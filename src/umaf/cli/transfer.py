"""`umaf transfer`: move capabilities of source models into a LoRA for a target."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import Field, field_validator
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from umaf.cli.changed import LIMIT, EvaluateOption, LimitOption
from umaf.cli.opening import (
    ModelConfig,
    PickleOption,
    RemoteOption,
    TruncateOption,
    opener,
    short,
    spread,
    stages,
)
from umaf.cli.options import ConfigOption, DeviceOption, DtypeOption, JsonOption, SeedOption, settle
from umaf.cli.tables import show_change
from umaf.cli.watching import MonitorOption, monitored
from umaf.errors import ConfigError

if TYPE_CHECKING:
    from umaf.evaluation.change import Change
    from umaf.models import Model
    from umaf.pipeline import Transfer

CUE = "answer"
Many = list[str] | None
ShotsOption = Annotated[
    str | None, typer.Option(metavar="TASK", help="Weigh the sources by ten labelled texts of this task.")
]


class TransferConfig(ModelConfig):
    """What `umaf transfer` does. What is said of sources is said once for all, or once for each."""

    source: tuple[str, ...] = Field(min_length=1)
    target: str
    probes: tuple[Path, ...] = Field(min_length=1)
    out: Path
    base: tuple[str, ...] = ()
    labels: tuple[tuple[str, ...], ...] = ()
    cue: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    route: str = "solve"
    rank: int = 8
    steps: int | None = Field(default=None, ge=1)
    experts: bool = False
    generator: Path | None = None
    refine: int = Field(default=0, ge=0)
    extractor: str | None = None
    scaling: str = "identity"
    fusion: str = "weighted"
    shots: str | None = None
    truncate: bool = False
    evaluate: tuple[str, ...] = ()
    evaluate_limit: int = LIMIT
    monitor: Path | None = None

    @field_validator("weights", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        return _parts(value) if isinstance(value, str) else value

    @field_validator("labels", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list | tuple):
            return [_parts(item) if isinstance(item, str) else item for item in value]
        return value


def transfer(
    ctx: typer.Context,
    source: Annotated[Many, typer.Option(metavar="MODEL", help="A model that has a capability.")] = None,
    target: Annotated[str | None, typer.Option(metavar="MODEL", help="The model that receives.")] = None,
    probes: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Texts on which the capability shows.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The PEFT folder to write.")] = None,
    base: Annotated[Many, typer.Option(metavar="MODEL", help="What the source was fine-tuned from.")] = None,
    labels: Annotated[
        Many, typer.Option(metavar="A,B", help="Label words; none for a classifier's own, or a function.")
    ] = None,
    cue: Annotated[
        Many, typer.Option(metavar="WORD", help=f"The word before the answer; {CUE!r} when not given.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="X,Y", help="Shares of the sources; negative takes away.")
    ] = None,
    route: Annotated[str, typer.Option(help="solve, distill or generate.")] = "solve",
    rank: Annotated[int, typer.Option(help="Of every module's update.")] = 8,
    steps: Annotated[int | None, typer.Option(help="Gradient steps of the route distill.")] = None,
    experts: Annotated[
        bool, typer.Option("--experts", help="Let distill train a mixture's stacked experts too.")
    ] = False,
    generator: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="A generator trained for the target, in place of the one that ships."
        ),
    ] = None,
    refine: Annotated[int, typer.Option(help="Gradient steps that go on from a generated adapter.")] = 0,
    extractor: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="pca, trained, bound, answers; what suits the route."),
    ] = None,
    scaling: Annotated[str, typer.Option(help="identity, film, film:FILE or ridge:FILE.")] = "identity",
    fusion: Annotated[str, typer.Option(help="weighted or spherical.")] = "weighted",
    shots: ShotsOption = None,
    truncate: TruncateOption = False,
    evaluate: EvaluateOption = None,
    evaluate_limit: LimitOption = LIMIT,
    monitor: MonitorOption = None,
    allow_pickle: PickleOption = False,
    trust_remote_code: RemoteOption = False,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Move capabilities of source models into a LoRA for a target of any architecture, without labels.

    --source, --base, --labels, --cue and --probes can be given once for each source, in the same order.
    """
    settings = settle(TransferConfig, ctx)
    with stages(quiet=as_json) as say, monitored(settings.monitor, "transfer"):
        done, change = move(settings, say)
    if as_json:
        print(json.dumps(_facts(done, settings, change), indent=2))
    else:
        show(done, settings, Console())
        if change is not None:
            show_change(Console(), change)


def move(settings: TransferConfig, say) -> tuple[Transfer, Change | None]:
    """Do what the command does, without printing."""
    from umaf.cli.changed import check_tasks, measured_transfer, now, write_change
    from umaf.evaluation.change import Asked

    began = now()
    asked = Asked(settings.evaluate_limit, settings.seed)
    check_tasks(settings.evaluate, asked)
    opened = opener(settings)
    done = _moved(settings, opened, say)
    if not settings.evaluate:
        return done, None
    change = measured_transfer(opened(settings.target), settings.out, settings.evaluate, asked, say)
    config = settings.model_dump(mode="json", exclude={"monitor"})
    facts = {key: _facts(done, settings)[key] for key in ("sources", "history", "seconds", "modules")}
    write_change(settings.out, "transfer", change, config=config, more=facts, began=began)
    return done, change


def _moved(settings: TransferConfig, opened: Callable[[str], Model], say) -> Transfer:
    from umaf.activations import read_probes
    from umaf.files import refuse_existing
    from umaf.generation.sources import Source
    from umaf.pipeline import transfer as run
    from umaf.search.shots import shots_of
    from umaf.tasks.door import load_task

    refuse_existing(settings.out)
    shots = None if settings.shots is None else shots_of(load_task(settings.shots), seed=settings.seed)
    count = len(settings.source)
    if len(settings.weights) not in (0, count):
        raise ConfigError(
            f"{count} sources were given with {len(settings.weights)} weights; give one weight for each source."
        )
    weights = settings.weights or (1.0,) * count
    bases = spread("base", settings.base, count, "")
    labels = spread("labels", settings.labels, count, ())
    cues = spread("cue", settings.cue, count, CUE)
    # One file for all sources is read once, and one capability shown by two sources stays one.
    texts = {path: read_probes(path).texts for path in dict.fromkeys(settings.probes)}
    probes = [texts[path] for path in spread("probes", settings.probes, count, settings.probes[0])]
    say("open the models")
    target = opened(settings.target)
    sources = [
        Source(
            opened(name), probes[i], cues[i], labels[i], opened(bases[i]) if bases[i] else None, weights[i]
        )
        for i, name in enumerate(settings.source)
    ]
    return run(
        sources,
        target,
        settings.out,
        route=settings.route,
        rank=settings.rank,
        seed=settings.seed,
        extractor=settings.extractor,
        scaling=settings.scaling,
        fusion=settings.fusion,
        options=_options(settings),
        shots=shots,
        truncate=settings.truncate,
        say=say,
    )


def _options(settings: TransferConfig) -> dict[str, Any]:
    """Give the route those options that were said."""
    said = {"steps": settings.steps, "generator": settings.generator and str(settings.generator)}
    said |= {"refine": settings.refine or None, "experts": settings.experts or None}
    return {name: value for name, value in said.items() if value is not None}


def show(done: Transfer, settings: TransferConfig, console: Console) -> None:
    """Print what moved, how near the target came, and where the adapter is."""
    facts = _facts(done, settings)
    table = Table("source", title="transfer", title_justify="left")
    table.add_column("share", justify="right")
    table.add_column("probes", justify="right")
    table.add_column("change from its base")
    for row in facts["sources"]:
        change = "none" if row["unchanged"] else f"{row['strength']:.3g}" if row["base"] else "base not given"
        table.add_row(escape(short(row["model"])), f"{row['weight']:g}", str(row["probes"]), change)
    console.print(table)
    came = [row for row in done.history if "divergence" in row]
    if came:
        # The bare target on the probes that the last number is from.
        before, after = came[-1].get("bare", came[0]["divergence"]), came[-1]["divergence"]
        where = came[-1].get("on", "probes left out of the fit")
        console.print(
            f"divergence from the sources' answers: {before:.4g} before, {after:.4g} after "
            f"(nats per probe, on {where})",
            soft_wrap=True,
        )
    for row in done.history:
        if "note" in row:
            console.print(escape(row["note"]), soft_wrap=True)
    console.print(f"route {done.route}, rank {settings.rank}, {done.seconds:.1f} s")
    console.print(f"adapter for {escape(settings.target)}: {escape(str(done.folder))}", soft_wrap=True)


def _facts(done: Transfer, settings: TransferConfig, change: Change | None = None) -> dict[str, Any]:
    """Put a result together for JSON."""
    from umaf.evaluation.change import change_numbers
    from umaf.evaluation.record import plain

    return {
        "folder": str(done.folder),
        "target": settings.target,
        "route": done.route,
        "rank": settings.rank,
        "seed": settings.seed,
        "seconds": round(done.seconds, 3),
        "modules": len(done.factors),
        "sources": [
            {
                "model": one.card.model,
                "base": one.card.base,
                "weight": weight,
                "probes": one.card.probe_count,
                "strength": one.card.strength,
                "unchanged": one.card.unchanged,
            }
            for one, weight in zip(done.fingerprints, done.fused.card.weights, strict=True)
        ],
        "history": list(done.history),
        **({} if change is None else {"change": plain(change_numbers(change))}),
    }


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")] if text.strip() else []
