"""`umaf scale`: a fingerprint as a model of another size would show it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from umaf.cli.opening import ModelConfig, PickleOption, RemoteOption, opener, short, stages
from umaf.cli.options import ConfigOption, DeviceOption, DtypeOption, JsonOption, SeedOption, settle

if TYPE_CHECKING:
    from umaf.extraction import Fingerprint


class ScaleConfig(ModelConfig):
    """What `umaf scale` does."""

    fingerprint: Path
    to: str
    out: Path
    method: str = "identity"


def scale(
    ctx: typer.Context,
    fingerprint: Annotated[Path | None, typer.Argument(help="A file of umaf fingerprint.")] = None,
    to: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The target, or a fingerprint of a model of its size.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it here (.safetensors).")] = None,
    method: Annotated[str, typer.Option(help="identity, film, film:FILE or ridge:FILE.")] = "identity",
    allow_pickle: PickleOption = False,
    trust_remote_code: RemoteOption = False,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Scale a fingerprint to the size of a target."""
    settings = settle(ScaleConfig, ctx)
    with stages(quiet=as_json) as say:
        found = make(settings, say)
    if as_json:
        print(json.dumps({"card": asdict(found.card), "file": str(settings.out)}, indent=2))
        return
    name, size = escape(short(found.card.model)), escape(str(found.card.scaled_to))
    Console().print(f"{name}, scaled to {size} by {escape(settings.method)}", soft_wrap=True)
    Console().print(f"written to {escape(str(settings.out))}", soft_wrap=True)


def make(settings: ScaleConfig, say) -> Fingerprint:
    """Do what the command does, without printing."""
    from umaf.extraction import Fingerprint
    from umaf.files import refuse_existing
    from umaf.scaling import SCALINGS
    from umaf.scaling import scale as run

    refuse_existing(settings.out)
    SCALINGS.get(settings.method.partition(":")[0])
    source = Fingerprint.load(settings.fingerprint)
    if settings.to.endswith(".safetensors"):
        to = Fingerprint.load(settings.to)
    else:
        say(f"open {short(settings.to)}")
        to = opener(settings)(settings.to)
    found = run(source, to, method=settings.method)
    found.save(settings.out)
    return found
