"""`umaf compare`: how similar models or fingerprints are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import Field
from rich.console import Console
from rich.markup import escape
from rich.table import Table

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
from umaf.errors import ConfigError

if TYPE_CHECKING:
    from umaf.extraction import Fingerprint


class CompareConfig(ModelConfig):
    """What `umaf compare` does."""

    models: tuple[str, ...] = Field(min_length=2)
    metric: str = "cosine"
    probes: Path | None = None
    base: tuple[str, ...] = ()
    extractor: str = "pca"
    normalisation: str = "centred"
    truncate: bool = False


def compare(
    ctx: typer.Context,
    models: Annotated[
        list[str] | None, typer.Argument(help="Two or more models, or files of fingerprints.")
    ] = None,
    metric: Annotated[
        str, typer.Option(help="cosine, pearson, spearman, cka (1 is equal) or kl (0 is equal).")
    ] = "cosine",
    probes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Texts: .txt or .jsonl; needed for models.")
    ] = None,
    base: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL", help="What they were fine-tuned from: once for all, or once for each."),
    ] = None,
    extractor: Annotated[
        str, typer.Option(help="pca or trained (needs --base), or one of them with :PLACE.")
    ] = "pca",
    normalisation: Annotated[str, typer.Option(help="Of the activations.")] = "centred",
    truncate: TruncateOption = False,
    allow_pickle: PickleOption = False,
    trust_remote_code: RemoteOption = False,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Print how similar models or fingerprints are, each with each."""
    settings = settle(CompareConfig, ctx)
    with stages(quiet=as_json) as say:
        values = table_of(settings, say)
    if as_json:
        print(
            json.dumps(
                {"metric": settings.metric, "models": settings.models, "similarities": values}, indent=2
            )
        )
        return
    names = [short(name) for name in settings.models]
    table = Table(settings.metric, *(escape(name) for name in names))
    for name, row in zip(names, values, strict=True):
        table.add_row(escape(name), *(f"{value:.3f}" for value in row))
    Console().print(table)


def table_of(settings: CompareConfig, say) -> list[list[float]]:
    """Do what the command does, without printing; a row for each model."""
    from umaf.activations import read_probes
    from umaf.extraction import SIMILARITIES, Fingerprint, extract, similarities

    SIMILARITIES.get(settings.metric)
    files = {name for name in settings.models if name.endswith(".safetensors")}
    opening = [name for name in settings.models if name not in files]
    if opening and settings.probes is None:
        raise ConfigError(
            f"{short(opening[0])} is a model, and models are compared on probes, but none were given; name a file of "
            "texts with --probes, or give files of fingerprints."
        )
    bases = iter(spread("base", settings.base, len(opening), ""))
    probes = read_probes(settings.probes) if opening and settings.probes is not None else None
    opened = opener(settings)
    found: list[Fingerprint] = []
    for name in settings.models:
        if name in files or probes is None:
            found.append(Fingerprint.load(name))
            continue
        say(f"fingerprint {name}")
        base = next(bases)
        found.append(
            extract(
                opened(name),
                probes,
                base=opened(base) if base else None,
                extractor=settings.extractor,
                normalisation=settings.normalisation,
                truncate=settings.truncate,
            )
        )
    return similarities(found, settings.metric).tolist()
