"""`umaf merge` where every model is a LoRA folder: the merged LoRA, and what its rank costs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from umaf.cli.opening import stages
from umaf.errors import ConfigError

if TYPE_CHECKING:
    from umaf.cli.merge import MergeConfig
    from umaf.merging.lowrank import LoraMerge, LoraPlan
    from umaf.merging.recipe import Recipe


def run(recipe: Recipe, settings: MergeConfig, *, as_json: bool) -> None:
    """Merge, and print one row for each module.

    Raises:
        ConfigError: an option has no meaning for LoRAs.
    """
    from umaf.merging.lora_recipe import merge_lora_recipe, plan_lora_recipe
    from umaf.merging.stages import check_apart

    if settings.resume:
        raise ConfigError("--resume has no meaning where only LoRA folders are merged; leave it out.")
    rank = settings.rank or "auto"
    if rank != "auto" and not rank.isdecimal():
        raise ConfigError(f"--rank was {rank!r}, but it must be a whole number or auto.")
    if settings.dry_run:
        wanted = "auto" if rank == "auto" else int(rank)
        plan = plan_lora_recipe(recipe, rank=wanted, allow_pickle=settings.allow_pickle)
        print(json.dumps(asdict(plan), indent=2)) if as_json else _show_plan(plan)
        return
    if settings.out is None:
        raise ConfigError(
            "umaf merge needs a folder to write to; name it after the recipe, or ask for --dry-run."
        )
    check_apart(settings.out, (recipe,))
    seeded = recipe if settings.seed is None else recipe.model_copy(update={"seed": settings.seed})
    with stages(quiet=as_json) as say:
        say(f"merge {len(recipe.models)} LoRAs")
        found = merge_lora_recipe(
            seeded,
            settings.out,
            rank="auto" if rank == "auto" else int(rank),
            allow_pickle=settings.allow_pickle,
        )
    if as_json:
        modules = [asdict(module) for module in found.modules]
        said = {
            "out": str(found.folder),
            "error": found.error,
            "modules": modules,
            "notes": list(found.notes),
        }
        print(json.dumps(said, indent=2))
        return
    _show(found)


def _show_plan(plan: LoraPlan) -> None:
    console = Console()
    table = Table("module", "shape", "ranks", "rank, at most", "merged", title=escape(f"on {plan.base}"))
    for row in plan.modules:
        shape, ranks = " x ".join(map(str, row.shape)), ", ".join(map(str, row.ranks))
        table.add_row(escape(row.name), shape, ranks, str(row.rank), "as factors" if row.exact else "dense")
    console.print(table)
    for note in plan.notes:
        console.print(f"note: {escape(note)}", highlight=False)


def _show(found: LoraMerge) -> None:
    console = Console()
    table = Table("module", "rank", "norm", "error", "merged")
    for row in found.modules:
        way = "as factors" if row.exact else "dense"
        table.add_row(escape(row.name), str(row.rank), f"{row.norm:.3g}", f"{row.error:.1%}", way)
    table.add_section()
    table.add_row("all", "", "", f"{found.error:.1%}", "")
    console.print(table)
    for note in found.notes:
        console.print(f"note: {escape(note)}", highlight=False)
    console.print(f"{escape(str(found.folder))} is a LoRA.", highlight=False)
