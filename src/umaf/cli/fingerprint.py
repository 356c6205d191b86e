"""`umaf fingerprint`: turn a model's activations into a fingerprint."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from umaf.cli.opening import ModelConfig, PickleOption, RemoteOption, TruncateOption, opener, stages
from umaf.cli.options import ConfigOption, DeviceOption, DtypeOption, JsonOption, SeedOption, settle
from umaf.cli.watching import MonitorOption, monitored

if TYPE_CHECKING:
    from umaf.extraction import Fingerprint


class FingerprintConfig(ModelConfig):
    """What `umaf fingerprint` does."""

    model: str
    probes: Path
    base: str | None = None
    extractor: str = "pca"
    normalisation: str = "centred"
    truncate: bool = False
    out: Path | None = None
    coordinates: bool = False
    monitor: Path | None = None


def fingerprint(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Argument(help="A hub id, a folder, or zoo:NAME.")] = None,
    probes: Annotated[Path | None, typer.Option(metavar="FILE", help="Texts: .txt or .jsonl.")] = None,
    base: Annotated[str | None, typer.Option(metavar="MODEL", help="What it was fine-tuned from.")] = None,
    extractor: Annotated[
        str, typer.Option(help="pca or trained (needs --base), or one of them with :PLACE.")
    ] = "pca",
    normalisation: Annotated[str, typer.Option(help="Of the activations.")] = "centred",
    truncate: TruncateOption = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it here (.safetensors).")] = None,
    coordinates: Annotated[
        bool, typer.Option("--coordinates", help="Keep in the file what the metric cka needs.")
    ] = False,
    monitor: MonitorOption = None,
    allow_pickle: PickleOption = False,
    trust_remote_code: RemoteOption = False,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Turn a model's activations into a fingerprint: 512 numbers that other models' can be compared with."""
    settings = settle(FingerprintConfig, ctx)
    with stages(quiet=as_json) as say, monitored(settings.monitor, f"fingerprint {settings.model}"):
        found = make(settings, say)
    if as_json:
        numbers = [round(x, 8) for x in found.vector.flatten().tolist()]
        file = None if settings.out is None else str(settings.out)
        print(json.dumps({"card": asdict(found.card), "file": file, "vector": numbers}, indent=2))
    else:
        show(found, settings.out, Console())


def make(settings: FingerprintConfig, say) -> Fingerprint:
    """Do what the command does, without printing."""
    from umaf.activations import read_probes
    from umaf.extraction import extract
    from umaf.files import refuse_existing

    if settings.out is not None:
        refuse_existing(settings.out)
    probes = read_probes(settings.probes)
    opened = opener(settings)
    say(f"open {settings.model}")
    model = opened(settings.model)
    base = None if settings.base is None else opened(settings.base)
    say(f"read {len(probes)} probes")
    found = extract(
        model,
        probes,
        base=base,
        extractor=settings.extractor,
        normalisation=settings.normalisation,
        truncate=settings.truncate,
    )
    if settings.out is not None:
        found.save(settings.out, coordinates=settings.coordinates)
    return found


def show(found: Fingerprint, out: Path | None, console: Console) -> None:
    """Print a fingerprint's card as a table."""
    card = found.card
    table = Table(title="fingerprint", title_justify="left", show_header=False)
    cut = f", {card.truncated} of them cut to the window" if card.truncated else ""
    tells = f"what was learned since {card.base}" if card.base else "what the model is (no base was given)"
    rows = {
        "model": card.model,
        "size": f"{card.architecture}, {card.layers} layers of width {card.width}, {card.parameters:,} parameters",
        "probes": f"{card.probe_count}{cut}, hash {card.probes[:12]}",
        "extractor": f"{card.extractor}, {card.normalisation}",
        "tells": "nothing: it answers every probe like its base" if card.unchanged else tells,
        "first of 512": " ".join(f"{x:+.3f}" for x in found.vector.flatten()[:6].tolist()),
    }
    for name, text in rows.items():
        table.add_row(name, escape(text))
    console.print(table)
    if out is not None:
        console.print(f"written to {escape(str(out))}", soft_wrap=True)
