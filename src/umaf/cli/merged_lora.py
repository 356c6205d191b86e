"""`umaf merge` where every model is a LoRA folder: the merged LoRA, and what its rank costs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from umaf.cli.opening import stages
from umaf.errors import ConfigError

if TYPE_CHECKING:
    from umaf.cli.merge import MergeConfig
    from umaf.deltas.lowrank import Rank
    from umaf.merging.lora.lowrank import LoraMerge, LoraPlan
    from umaf.merging.recipes.recipe import Recipe


def run(recipes: Sequence[Recipe], settings: MergeConfig, *, as_json: bool) -> None:
    """Merge, and print one row for each module; of a plan of several merges, those of the first.

    Raises:
        ConfigError: an option has no meaning for LoRAs.
    """
    rank = settings.rank or "auto"
    if rank != "auto" and not rank.isdecimal():
        raise ConfigError(f"--rank was {rank!r}, but it must be a whole number or auto.")
    if settings.engine != "local":
        raise ConfigError(
            f"--engine {settings.engine} has no meaning where only LoRA folders are merged; leave it out."
        )
    wanted = "auto" if rank == "auto" else int(rank)
    if settings.dry_run:
        _plan(recipes, settings, wanted if len(recipes) == 1 else "auto", as_json=as_json)
        return
    found = _merged(recipes, settings, wanted, quiet=as_json)
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


def _plan(recipes: Sequence[Recipe], settings: MergeConfig, rank: Rank, *, as_json: bool) -> None:
    from umaf.checkpoints import check_place
    from umaf.merging.lora.recipe import plan_lora_recipe
    from umaf.merging.stages import check_apart

    if settings.out is not None:
        check_apart(settings.out, tuple(recipes))
        check_place(settings.out)
    first, *rest = recipes
    plan = plan_lora_recipe(first, rank=rank, allow_pickle=settings.allow_pickle)
    later = [one.name or one.method for one in rest]
    print(json.dumps({**asdict(plan), "later": later}, indent=2)) if as_json else _show_plan(plan, later)


def _merged(recipes: Sequence[Recipe], settings: MergeConfig, rank: Rank, *, quiet: bool) -> LoraMerge:
    from umaf.merging.lora.recipe import merge_lora_recipe
    from umaf.merging.stages import check_apart, made_stages, placed, with_seed

    if settings.out is None:
        raise ConfigError(
            "umaf merge needs a folder to write to; name it after the recipe, or ask for --dry-run."
        )
    check_apart(settings.out, tuple(recipes))
    *before, last = with_seed(tuple(recipes), settings.seed)
    pickle = settings.allow_pickle
    with stages(quiet=quiet) as say, made_stages(before, settings.out, allow_pickle=pickle) as folders:
        say(f"merge {len(last.models)} LoRAs")
        return merge_lora_recipe(placed(last, before, folders), settings.out, rank=rank, allow_pickle=pickle)


def _show_plan(plan: LoraPlan, later: Sequence[str]) -> None:
    console = Console()
    table = Table("module", "shape", "ranks", "rank, at most", "merged", title=escape(f"on {plan.base}"))
    for row in plan.modules:
        shape, ranks = " x ".join(map(str, row.shape)), ", ".join(map(str, row.ranks))
        table.add_row(escape(row.name), shape, ranks, str(row.rank), "as factors" if row.exact else "dense")
    console.print(table)
    for note in plan.notes:
        console.print(f"note: {escape(note)}", highlight=False)
    for name in later:
        console.print(f"{escape(name)} is planned when the merges before it are made.", highlight=False)


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
