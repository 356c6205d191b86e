"""`umaf train`: train an extractor, an interpolator, a gate, or a generator for a target of your own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import Field
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from umaf.cli.opening import ModelConfig, PickleOption, RemoteOption, opener
from umaf.cli.options import (
    CommonConfig,
    ConfigOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    SeedOption,
    settle,
)

BankOption = Annotated[
    Path | None,
    typer.Option("--bank", metavar="DIR", help="Training material, from `python -m zoo.material`."),
]
OutOption = Annotated[Path | None, typer.Option(metavar="PATH", help="What to write; it must not exist.")]
StepsOption = Annotated[
    int | None, typer.Option(help="Gradient steps at most; the stage's default if not given.")
]
RateOption = Annotated[
    float | None, typer.Option(help="Peak learning rate; the stage's default if not given.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Another setting of the training.")
]
ExtractorOption = Annotated[
    str, typer.Option(help="pca, trained, or one of them with :PLACE: of the fingerprints.")
]

train = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Train the extractor, the interpolator, the gate, or a generator for a target.",
)


class StageConfig(CommonConfig):
    """The options that every training has."""

    bank: Path
    out: Path
    steps: int | None = Field(default=None, ge=1)
    rate: float | None = Field(default=None, gt=0)
    set: tuple[str, ...] = ()
    extractor: str = "pca"


class ExtractorConfig(StageConfig):
    """The options of `umaf train extractor`."""

    design: Literal["linear", "encoder"] = "linear"


class GeneratorConfig(ModelConfig):
    """The options of `umaf train generator`."""

    target: str
    bank: Path
    out: Path
    begin: Path | None = None
    steps: int | None = Field(default=None, ge=1)
    rate: float | None = Field(default=None, gt=0)
    set: tuple[str, ...] = ()


@train.command("generator")
def train_generator(
    ctx: typer.Context,
    target: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The model it makes adapters for.")
    ] = None,
    bank: BankOption = None,
    out: OutOption = None,
    begin: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A generator of this target to go on from.")
    ] = None,
    steps: StepsOption = None,
    rate: RateOption = None,
    set: SetOption = None,
    allow_pickle: PickleOption = False,
    trust_remote_code: RemoteOption = False,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Train an adapter generator for one target; an interrupted training goes on when the command is repeated."""
    settings = settle(GeneratorConfig, ctx)
    from umaf.extraction import load_bound
    from umaf.extraction.universal import FILE
    from umaf.files import refuse_existing
    from umaf.generation.generator import load_generator, save_generator
    from umaf.training.devices import found
    from umaf.training.generator import train_generator as run
    from umaf.training.lesson import GeneratorSettings
    from umaf.training.material import load_material

    refuse_existing(settings.out)
    plan = _plan(GeneratorSettings, settings)
    material = load_material(settings.bank / "material.safetensors")
    crew = found()
    with _shown(quiet=as_json or not crew.first) as said:
        generator, done = run(
            opener(settings)(settings.target),
            material,
            load_bound(settings.bank if (settings.bank / FILE).is_file() else None),
            settings=plan,
            begin=None if settings.begin is None else load_generator(settings.begin),
            folder=_state(settings.out),
            said=said,
            devices=crew,
        )
    if crew.first:
        save_generator(generator, settings.out)
        _finish(settings.out, done, generator.version, as_json, share=generator.card.share)


@train.command("extractor")
def train_extractor(
    ctx: typer.Context,
    bank: BankOption = None,
    out: OutOption = None,
    design: Annotated[
        str,
        typer.Option(help="linear: closed form, in seconds; encoder: the Transformer Encoder, by gradients."),
    ] = "linear",
    steps: StepsOption = None,
    rate: RateOption = None,
    set: SetOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Train the Capability Extractor on experts of several models."""
    settings = settle(ExtractorConfig, ctx)
    if settings.design == "linear":
        _fit_linear(settings, as_json)
        return
    from umaf.extraction import save_trained
    from umaf.files import refuse_existing
    from umaf.training.devices import found
    from umaf.training.entries import load_entries
    from umaf.training.extractor import ExtractorSettings
    from umaf.training.extractor import train_extractor as run

    refuse_existing(settings.out)
    plan = _plan(ExtractorSettings, settings)
    entries = load_entries(settings.bank / "entries")
    crew = found()
    with _shown(quiet=as_json or not crew.first) as said:
        extractor, done = run(entries, settings=plan, folder=_state(settings.out), said=said, devices=crew)
    if crew.first:
        save_trained(extractor, settings.out)
        _finish(settings.out, done, extractor.version, as_json)


@train.command("interpolator")
def train_interpolator(
    ctx: typer.Context,
    bank: BankOption = None,
    out: OutOption = None,
    extractor: ExtractorOption = "pca",
    steps: StepsOption = None,
    rate: RateOption = None,
    set: SetOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Train the Size Interpolator on capabilities that the bank has at several sizes."""
    settings = settle(StageConfig, ctx)
    from umaf.files import refuse_existing
    from umaf.training.fingerprints import pairs_of, read_bank
    from umaf.training.interpolator import InterpolatorSettings
    from umaf.training.interpolator import train_interpolator as run

    refuse_existing(settings.out)
    plan = _plan(InterpolatorSettings, settings)
    known = read_bank(settings.bank / "entries", settings.extractor)
    with _shown(quiet=as_json) as said:
        network, done = run(
            pairs_of(known, "train"),
            pairs_of(known, "validation"),
            settings=plan,
            folder=_state(settings.out),
            said=said,
        )
    network.save(settings.out)
    _finish(settings.out, done, network.version, as_json)


@train.command("gate")
def train_gate(
    ctx: typer.Context,
    bank: BankOption = None,
    out: OutOption = None,
    extractor: ExtractorOption = "pca",
    steps: StepsOption = None,
    rate: RateOption = None,
    set: SetOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Train the gate that weighs sources for a wanted task."""
    settings = settle(StageConfig, ctx)
    from umaf.files import refuse_existing
    from umaf.training.fingerprints import read_bank, shown_of
    from umaf.training.gate import GateSettings
    from umaf.training.gate import train_gate as run

    refuse_existing(settings.out)
    plan = _plan(GateSettings, settings)
    known = read_bank(settings.bank / "entries", settings.extractor)
    with _shown(quiet=as_json) as said:
        gate, done = run(
            shown_of(known, "train"),
            shown_of(known, "validation"),
            settings=plan,
            folder=_state(settings.out),
            said=said,
        )
    gate.save(settings.out)
    _finish(settings.out, done, gate.version, as_json)


def _fit_linear(settings: ExtractorConfig, as_json: bool) -> None:
    """Fit the linear extractor, and say how it finds validation capabilities."""
    from umaf.errors import ConfigError
    from umaf.extraction import save_linear
    from umaf.files import refuse_existing
    from umaf.training.entries import load_entries
    from umaf.training.linear import train_linear

    if settings.set or settings.steps or settings.rate:
        raise ConfigError(
            "The linear extractor was given steps, a rate or other settings, and has none: it is fitted in closed "
            "form; leave them out, or choose --design encoder."
        )
    refuse_existing(settings.out)
    made = train_linear(load_entries(settings.bank / "entries"))
    save_linear(made.extractor, settings.out)
    facts = {
        "out": str(settings.out),
        "version": made.extractor.version,
        "entries": made.entries,
        "top1": made.top1,
        "top5": made.top5,
    }
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    found = "" if made.top1 is None else f"; validation capabilities found: {made.top1:.2f}"
    print(f"{made.extractor.version}: fitted on {made.entries} experts{found}")
    print(f"wrote {settings.out}")


def _plan(kind: type, settings: StageConfig | GeneratorConfig) -> Any:
    """Make a training's settings of what was typed."""
    from umaf.cli.options import build
    from umaf.errors import ConfigError

    values: dict[str, Any] = {"seed": settings.seed}
    for word in settings.set:
        key, sign, value = word.partition("=")
        if not sign:
            raise ConfigError(f"--set was given {word!r}; write KEY=VALUE, such as texts=32.")
        values[key] = value
    values |= {
        name: getattr(settings, name) for name in ("steps", "rate") if getattr(settings, name) is not None
    }
    return build(kind, values, name="train")


def _state(out: Path) -> Path:
    """Where an unfinished training is kept: beside what it will write."""
    return out.parent / f"{out.name}.unfinished"


@contextmanager
def _shown(*, quiet: bool) -> Iterator[Callable[[int, int, Mapping[str, Any]], None] | None]:
    """Show steps, time left and the newest look; on a terminal only."""
    console = Console(stderr=True, quiet=quiet)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as progress:
        bar = progress.add_task("train", total=None)

        def said(step: int, steps: int, row: Mapping[str, Any]) -> None:
            if "score" in row:
                progress.update(bar, description=f"validation {row['score']:.3f}")
            progress.update(bar, completed=step, total=steps)

        yield said


def _finish(out: Path, done: Any, version: str, as_json: bool, *, share: float | None = None) -> None:
    """Put the curve beside what was trained, remove the unfinished state, and say how it went."""
    import shutil

    from umaf.files import write_json

    curve = out / "curve.json" if out.is_dir() else out.with_name(f"{out.name}.curve.json")
    write_json(curve, list(done.curve))
    shutil.rmtree(_state(out), ignore_errors=True)
    facts = {"out": str(out), "version": version, "best": done.best, "stopped early": done.stopped}
    if share is not None:
        facts["share"] = share
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    first = next(row["score"] for row in done.curve if "score" in row)
    print(f"{version}: validation {first:.3f} at first, {done.best['score']:.3f} at step {done.best['step']}")
    if share is not None:
        print(f"adapters get {share:g} of the trained LoRA")
    print(f"wrote {out}")
