"""`umaf fuse`: several fingerprints as one."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import Field, field_validator
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from umaf.cli.opening import short
from umaf.cli.options import CommonConfig, ConfigOption, JsonOption, settle
from umaf.errors import ConfigError

if TYPE_CHECKING:
    from umaf.extraction import Fingerprint


class FuseConfig(CommonConfig):
    """What `umaf fuse` does."""

    fingerprints: tuple[Path, ...] = Field(min_length=1)
    out: Path
    weights: tuple[float, ...] = ()
    like: Path | None = None
    metric: str = "cosine"
    temperature: float = 0.1
    gate: Path | None = None
    method: str = "weighted"

    @field_validator("weights", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def fuse(
    ctx: typer.Context,
    fingerprints: Annotated[list[Path] | None, typer.Argument(help="Files of umaf fingerprint.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it here (.safetensors).")] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="X,Y", help="Shares; 0 leaves out, negative takes away; equal.")
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Weigh by likeness to this: a fingerprint on the wanted task."),
    ] = None,
    metric: Annotated[str, typer.Option(help="Of the likeness.")] = "cosine",
    temperature: Annotated[float, typer.Option(help="Small ones choose the likest.")] = 0.1,
    gate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Weigh by a trained gate, for what --like says.")
    ] = None,
    method: Annotated[str, typer.Option(help="weighted or spherical.")] = "weighted",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Fuse fingerprints of several capabilities into one, by weights or by likeness to what is wanted."""
    settings = settle(FuseConfig, ctx)
    found = make(settings)
    if as_json:
        print(json.dumps({"card": asdict(found.card), "file": str(settings.out)}, indent=2))
        return
    table = Table("fingerprint", "share", title=found.card.model, title_justify="left")
    for name, weight in zip(settings.fingerprints, found.card.weights, strict=True):
        table.add_row(escape(short(str(name))), f"{weight:+.3f}")
    Console().print(table)
    Console().print(f"written to {escape(str(settings.out))}", soft_wrap=True)


def make(settings: FuseConfig) -> Fingerprint:
    """Do what the command does, without printing."""
    from umaf.extraction import Fingerprint
    from umaf.files import refuse_existing
    from umaf.fusion import fuse as run

    refuse_existing(settings.out)
    sources = [Fingerprint.load(file) for file in settings.fingerprints]
    found = run(sources, _weights(settings, sources), method=settings.method)
    found.save(settings.out)
    return found


def _weights(settings: FuseConfig, sources: list[Fingerprint]) -> list[float] | None:
    """Give the weights that were asked for, in the one way of three."""
    from umaf.extraction import Fingerprint
    from umaf.fusion import gated_weights, load_gate, weights_from_similarity

    if settings.gate is not None and settings.like is None:
        raise ConfigError("umaf fuse: --gate needs to know what is wanted; name its fingerprint with --like.")
    if settings.like is None:
        return list(settings.weights) or None
    wanted = Fingerprint.load(settings.like)
    if settings.gate is not None:
        return gated_weights(load_gate(settings.gate), wanted, sources, settings.weights or None)
    if settings.weights:
        raise ConfigError(
            "umaf fuse: --weights and --like were given, and both say how much each counts; give one of them."
        )
    return weights_from_similarity(sources, wanted, temperature=settings.temperature, metric=settings.metric)
