"""`umaf zoo list`, `umaf zoo build` and `umaf zoo bank`: the small models that ship with umaf, and what they learn."""

from __future__ import annotations

import json
import math
import struct
import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import Field
from rich.console import Console
from rich.table import Table

from umaf.cli.options import (
    CommonConfig,
    ConfigOption,
    DeviceOption,
    Dtype,
    JsonOption,
    SeedOption,
    settle,
)
from umaf.errors import ConfigError, ModelError

CHECKOUT = Path(__file__).resolve().parents[3]

zoo = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="List or build the small models that ship with umaf, and their experts.",
)


@zoo.command("list")
def list_models(as_json: JsonOption = False) -> None:
    """List the models: family, parameters, size on disk, licence."""
    from umaf.models.locate import ZOO

    rows = [describe(folder) for folder in sorted(model_folders(ZOO), key=lambda folder: folder.name)]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    if not rows:
        print("The zoo is empty here; build it with `umaf zoo build`.")
        return
    table = Table(*("model", "family", "layers", "width", "vocabulary"), title="open one as zoo:<model>")
    for heading in ("parameters", "MB"):
        table.add_column(heading, justify="right")
    table.add_column("licence")
    for row in rows:
        sizes = [str(row[key]) if row[key] is not None else "" for key in ("layers", "width", "vocabulary")]
        table.add_row(
            row["name"],
            row["family"],
            *sizes,
            f"{row['parameters']:,}",
            f"{row['megabytes']:.1f}",
            row["licence"] or "",
        )
    Console().print(table)


class BuildConfig(CommonConfig):
    """What `umaf zoo build` does."""

    data: Path | None = None
    only: tuple[str, ...] = ()
    out: Path | None = None
    cache: Path | None = None
    threads: int = Field(default=1, ge=1)
    seed: int = 1
    dtype: Literal["bfloat16", "float32"] = "bfloat16"


@zoo.command("build")
def build(
    ctx: typer.Context,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="The folder of real data.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A model to build; all when none is named.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where models go; the zoo itself.")] = None,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where a build that is stopped leaves what it has.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of the arithmetic.")] = 1,
    seed: SeedOption = 1,
    device: DeviceOption = "cpu",
    dtype: Annotated[Dtype, typer.Option(help="Of the arithmetic: bfloat16 or float32.")] = "bfloat16",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Pretrain the models that are missing; a build that was stopped goes on where it was."""
    settings = settle(BuildConfig, ctx)
    recipe = _recipe("zoo.build")
    import torch

    torch.set_num_threads(settings.threads)
    wanted = settings.model_dump(exclude={"threads"})
    rows = recipe.build(wanted.pop("only"), **wanted, say=(lambda _: None) if as_json else Console().print)
    if as_json:
        print(json.dumps(rows, indent=2))


@zoo.command(
    "bank",
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def bank(ctx: typer.Context) -> None:
    """Fine-tune experts and oracle LoRAs that are missing (see `umaf zoo bank --help`)."""
    _recipe("zoo.bank").main(ctx.args)


def _recipe(name: str) -> Any:
    """Import a recipe of the zoo."""
    if not (CHECKOUT / "zoo" / "build.py").is_file():
        raise ConfigError(
            "Building the zoo needs its recipes, which an installed wheel leaves out; run it in a git clone."
        )
    # The recipes are no part of the package, so a checkout's root has to be on the path.
    if str(CHECKOUT) not in sys.path:
        sys.path.insert(0, str(CHECKOUT))
    return import_module(name)


def model_folders(places: Iterable[Path]) -> list[Path]:
    """Find the folders that hold a model; the first place wins where two hold the same name."""
    found: dict[str, Path] = {}
    for place in places:
        for config in place.glob("*/config.json"):
            found.setdefault(config.parent.name, config.parent)
    return list(found.values())


def describe(folder: Path) -> dict:
    """Read what a model is from its config, its weights' header and its card, without opening it.

    Returns:
        name, family, layers, width, vocabulary, parameters, megabytes (10**6 bytes, whole folder), licence, about.

    Raises:
        ModelError: the folder's config or weights cannot be read.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        parameters = sum(_count(path) for path in folder.glob("*.safetensors"))
    except (OSError, ValueError, struct.error) as problem:
        raise ModelError(
            f"The model {folder} was to be listed, but cannot be read ({problem}); remove it and run `umaf zoo build`."
        ) from problem
    licence, about = _card(folder / "README.md")
    return {
        "name": folder.name,
        "family": config.get("model_type", "unknown"),
        "layers": config.get("num_hidden_layers") or config.get("n_layer") or config.get("num_layers"),
        "width": config.get("hidden_size") or config.get("n_embd") or config.get("d_model"),
        "vocabulary": config.get("vocab_size"),
        "parameters": parameters,
        "megabytes": round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6, 2),
        "licence": licence,
        "about": about,
    }


def _count(weights: Path) -> int:
    # A safetensors file opens with the length of its JSON header, in 8 little-endian bytes.
    with weights.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > weights.stat().st_size:
            raise ValueError(f"{weights.name} is cut short")
        header = json.loads(file.read(length))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")


def _card(path: Path) -> tuple[str | None, str]:
    """Read the licence and the first paragraph of a model card; (None, "") where there is none."""
    if not path.is_file():
        return None, ""
    text = path.read_text(encoding="utf-8")
    licence = None
    if text.startswith("---\n"):
        head, _, text = text[4:].partition("\n---\n")
        licence = next(
            (line.split(":", 1)[1].strip() for line in head.splitlines() if line.startswith("license:")), None
        )
    paragraphs = [part for part in text.split("\n\n") if part.strip()]
    # A card's title can touch its first paragraph.
    lines = [[line for line in part.splitlines() if line and not line.startswith("#")] for part in paragraphs]
    return licence, next((" ".join(part) for part in lines if part), "")
