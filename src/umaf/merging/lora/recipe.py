"""Recipes whose models are LoRA folders, without their base: the result is a LoRA folder too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from umaf.checkpoints import check_place
from umaf.deltas.lowrank import Rank
from umaf.deltas.settings import read_config
from umaf.merging.lora.lowrank import LoraMerge, LoraPlan, merge_loras, plan_loras
from umaf.merging.lora.modules import on_weights
from umaf.merging.lora.options import varies, vary_by
from umaf.merging.planning.opening import open_ref
from umaf.merging.recipes.recipe import Recipe, Value
from umaf.merging.recipes.reference import Ref
from umaf.merging.recipes.written import written
from umaf.merging.registry import method_of
from umaf.merging.writing.card import lora_card
from umaf.merging.writing.parents import adapters_of, named

T = TypeVar("T")

_UNUSED = ("slices", "tokenizer", "chat_template")


def merge_lora_recipe(
    recipe: Recipe,
    out: str | Path,
    *,
    rank: Rank = "auto",
    energy: float | None = None,
    allow_pickle: bool = False,
) -> LoraMerge:
    """Merge the LoRA folders that a recipe names; see :func:`umaf.merging.lora.lowrank.merge_loras`.

    Args:
        recipe: every model is a LoRA folder (`Recipe.of_loras`). Its base may be left out; where it is named, its
            weights are read only for what needs them, and fetched only then.
        out: folder to write; nothing there yet, or an empty folder.
        rank: of the merged modules.
        energy: share of the squared norm that "auto" holds.
        allow_pickle: read a base that is stored as pickle too.

    Returns:
        Ranks and errors.

    Raises:
        ConfigError: the recipe says what has no meaning for LoRAs, such as a tokenizer.
        AdapterError: the adapters have different bases, or hold what a merged LoRA cannot.
        CheckpointError: the base cannot be read.
        OutputError: the folder holds something or cannot be written.
    """
    out = check_place(out)
    folders = [one.model.folder for one in recipe.models]
    record = provenance(recipe)
    merge = partial(
        merge_loras,
        recipe.method,
        folders,
        out,
        rank=rank,
        energy=energy,
        dtype=recipe.dtype,
        record=record,
        about=lora_card(record),
    )
    empty = out.is_dir()
    if empty:
        out.rmdir()
    try:
        return _with_base(recipe, merge, allow_pickle)
    except BaseException:
        if empty:
            out.mkdir()
        raise


def provenance(recipe: Recipe) -> dict[str, Any]:
    """Say what a LoRA is merged of: the recipe as it can be run again, and every adapter with its licence.

    Example:
        >>> provenance(Recipe(method="linear", models=["org/a", "org/b"]))["parents"][0]
        {'model': 'org/a', 'licence': None}
    """
    stages = recipe.stages
    found = [added for one in recipe.models for added in adapters_of(one.model, stages)]
    names = [str(named(one.model, stages)) for one in recipe.models]
    parents = list({one["model"]: one for one in found}.values())
    return {"adapters": names, "recipe": written(recipe), "parents": parents}


def plan_lora_recipe(
    recipe: Recipe, *, rank: Rank = "auto", energy: float | None = None, allow_pickle: bool = False
) -> LoraPlan:
    """Find out what :func:`merge_lora_recipe` would do with the same arguments, and whether it can.

    Args:
        recipe: as there.
        rank: as there.
        energy: as there.
        allow_pickle: as there.

    Raises:
        ConfigError: the recipe says what has no meaning for LoRAs.
        AdapterError: the adapters have different bases, or hold what a merged LoRA cannot.
        CheckpointError: the base cannot be read.
    """
    folders = [one.model.folder for one in recipe.models]
    return _with_base(
        recipe, partial(plan_loras, recipe.method, folders, rank=rank, energy=energy), allow_pickle
    )


def _with_base(recipe: Recipe, run: Callable[..., T], allow_pickle: bool) -> T:
    for key in _UNUSED:
        if getattr(recipe, key):
            raise recipe.error(
                (key,), f"{key} has no meaning where only LoRA folders are merged; leave it out."
            )
    if recipe.dtype == "float64":
        raise recipe.error(
            ("dtype",),
            "Factors of LoRAs are calculated in float32, and float64 holds no more; leave dtype out.",
        )
    given = {"vary": vary_by(recipe)} if varies(recipe) else _options(recipe)
    if recipe.base is None or not (_at_hand(recipe.base) or _wants_base(recipe)):
        return run(seed=recipe.seed, **given)
    with open_ref(recipe.base, allow_pickle=allow_pickle) as base:
        return run(base=base, seed=recipe.seed, **given)


def _at_hand(base: Ref) -> bool:
    """Tell a path, or a model that ships, from a hub id."""
    return base.path.startswith((".", "/", "~", "zoo:")) or Path(base.path).exists()


def _wants_base(recipe: Recipe) -> bool:
    # A mean of weights is the base and the mean of deltas.
    mean = recipe.method == "linear" and recipe.options.get("normalize", True) is True
    if on_weights(recipe.method) and not mean:
        return True
    configs = [read_config(one.model.folder) for one in recipe.models]
    # A base that is named says that adapters belong together which call theirs by different names.
    apart = len({config.get("base_model_name_or_path") for config in configs}) > 1
    return apart or any(config.get("use_dora") or config.get("modules_to_save") for config in configs)


def _options(recipe: Recipe) -> dict[str, Any]:
    """Give the recipe's options as the merge takes them: one value, or one for each model."""
    found: dict[str, Any] = dict(recipe.options)
    known = method_of(recipe.method).options
    own: list[Mapping[str, Value]] = [one.options for one in recipe.models]
    for name in dict.fromkeys(name for options in own for name in options):
        default = found.get(name, known[name].default)
        found[name] = [options.get(name, default) for options in own]
    return found
