"""`umaf extract-lora`: what an expert changed in its base, as a LoRA."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from umaf.cli.opening import PickleOption, stages
from umaf.cli.options import JsonOption, SeedOption
from umaf.errors import ConfigError

if TYPE_CHECKING:
    from umaf.deltas import Extraction


def extract_lora(
    expert: Annotated[str, typer.Argument(help="A fine-tuned model: a folder, a file, a hub id.")],
    base: Annotated[str, typer.Option(metavar="MODEL", help="What it was fine-tuned from.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="The LoRA to write.")],
    rank: Annotated[str, typer.Option(help="Of every module; auto takes what --energy needs.")] = "auto",
    energy: Annotated[
        float, typer.Option(help="Share of the squared norm of the change that auto keeps.")
    ] = 0.9,
    most: Annotated[int, typer.Option("--max-rank", help="Highest rank that auto takes.")] = 128,
    allow_pickle: PickleOption = False,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Turn what an expert changed in its base into a LoRA, and say what the LoRA misses."""
    from umaf.checkpoints import open_checkpoint
    from umaf.deltas.extract import Amount, extract_lora

    if rank != "auto" and not rank.isdecimal():
        raise ConfigError(f"--rank was {rank!r}, but it must be a whole number or auto.")
    amount = Amount("auto" if rank == "auto" else int(rank), energy, most)
    opened = [open_checkpoint(name, allow_pickle=allow_pickle) for name in (expert, base)]
    with stages(quiet=as_json) as say:
        say("decompose")
        found = extract_lora(*opened, folder=out, amount=amount, seed=seed)
    if as_json:
        print(json.dumps(as_data(found), indent=2))
        return
    _show(found)


def as_data(found: Extraction) -> dict[str, Any]:
    """Write what was extracted as JSON holds it."""
    return {
        "folder": str(found.folder),
        "error": found.error,
        "modules": [vars(row) for row in found.modules],
        "left_out": [{"name": name, "norm": norm} for name, norm in found.left_out],
    }


def _show(found: Extraction) -> None:
    console = Console()
    table = Table("module", "rank", "norm of the change", "error")
    for row in found.modules:
        table.add_row(escape(row.name), str(row.rank), f"{row.norm:.3g}", f"{row.error:.1%}")
    table.add_section()
    table.add_row("all", "", "", f"{found.error:.1%}")
    console.print(table)
    if found.left_out:
        names = [name for name, _ in sorted(found.left_out, key=lambda one: -(one[1] or float("inf")))]
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        console.print(
            f"changed, but not in the LoRA: {escape(', '.join(names[:5]))}{more}",
            soft_wrap=True,
            highlight=False,
        )
    print(found.folder)
