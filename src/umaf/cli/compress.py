"""`umaf compress` and `umaf restore`: experts into few bytes, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
import yaml
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.markup import escape

from umaf.cli.options import ConfigOption, JsonOption, settle
from umaf.errors import ConfigError


class CompressConfig(BaseModel):
    """What `umaf compress` does."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    way: str
    out: Path
    base: str
    expert: tuple[str, ...]
    option: tuple[str, ...] = ()
    allow_pickle: bool = False


class RestoreConfig(BaseModel):
    """What `umaf restore` does."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    store: Path
    out: Path
    base: str
    expert: str | None = None
    weight: tuple[str, ...] = ()


def compress(
    ctx: typer.Context,
    way: Annotated[str | None, typer.Argument(help="tall_masks, emr, twin, compeft or rmm.")] = None,
    out: Annotated[Path | None, typer.Argument(help="A folder that is not there yet.")] = None,
    base: Annotated[str | None, typer.Option(help="Model the experts were fine-tuned from.")] = None,
    expert: Annotated[list[str] | None, typer.Option(help="NAME=MODEL; once for each expert.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; once for each option.")] = None,
    allow_pickle: Annotated[bool, typer.Option("--allow-pickle", help="Read .bin files too.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Pack experts of one base into a store that gives each of them back."""
    settings = settle(CompressConfig, ctx)
    from umaf.merging.stores.folder import compress as run

    kept = run(
        settings.way,
        settings.base,
        named(settings.expert, "--expert"),
        settings.out,
        options={name: yaml.safe_load(value) for name, value in named(settings.option, "--option").items()},
        allow_pickle=settings.allow_pickle,
    )
    if as_json:
        found = {"out": str(kept.folder), "bytes": kept.bytes, "bytes_of_experts": kept.bytes_of_experts}
        print(json.dumps(found))
        return
    share = kept.bytes / max(1, kept.bytes_of_experts)
    size = f"{kept.bytes:,} bytes, {share:.1%} of the experts' {kept.bytes_of_experts:,}"
    Console().print(f"{escape(str(kept.folder))} takes {size}.", highlight=False)


def restore(
    ctx: typer.Context,
    store: Annotated[Path | None, typer.Argument(help="What umaf compress made.")] = None,
    out: Annotated[Path | None, typer.Argument(help="A folder that is not there yet, or empty.")] = None,
    base: Annotated[str | None, typer.Option(help="Model the experts were fine-tuned from.")] = None,
    expert: Annotated[str | None, typer.Option(help="Name of the expert.")] = None,
    weight: Annotated[
        list[str] | None, typer.Option(help="NAME=NUMBER; a mixture instead of one expert.")
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Write an expert of a store, or a mixture of its experts, as a checkpoint."""
    settings = settle(RestoreConfig, ctx)
    from umaf.merging.stores.folder import restore as run

    weights = {name: number(name, value) for name, value in named(settings.weight, "--weight").items()}
    folder = run(settings.store, settings.base, settings.out, expert=settings.expert, weights=weights or None)
    print(json.dumps({"out": str(folder)})) if as_json else Console().print(
        f"{escape(str(folder))} was made.", highlight=False
    )


def named(rows: tuple[str, ...], what: str) -> dict[str, str]:
    """Read NAME=VALUE rows.

    Raises:
        ConfigError: a row without a name, or a name twice.

    Example:
        >>> named(("maths=org/maths",), "--expert")
        {'maths': 'org/maths'}
    """
    found: dict[str, str] = {}
    for row in rows:
        name, mark, value = row.partition("=")
        if not (name and mark and value):
            raise ConfigError(f"{what} must be NAME=VALUE, got {row!r}.")
        if name in found:
            raise ConfigError(f"{what} names {name} twice; give every name once.")
        found[name] = value
    return found


def number(name: str, value: str) -> float:
    """Read a number.

    Raises:
        ConfigError: it is none.

    Example:
        >>> number("maths", "0.5")
        0.5
    """
    try:
        return float(value)
    except ValueError:
        raise ConfigError(f"The weight of {name} must be a number, got {value!r}.") from None
