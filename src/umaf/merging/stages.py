"""From a recipe to a folder: its stages, each planned when what it is made of is there, and run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

from umaf.checkpoints import check_place, draft_of
from umaf.errors import ConfigError
from umaf.merging.lora.recipe import merge_lora_recipe
from umaf.merging.planning.check import check_output
from umaf.merging.planning.jobs import Plan
from umaf.merging.planning.opening import Open, open_models, open_ref
from umaf.merging.planning.plan import make_plan
from umaf.merging.planning.vocabulary import align, read_alignment
from umaf.merging.recipes.read import read_stages
from umaf.merging.recipes.recipe import Recipe
from umaf.merging.running.crew import Progress
from umaf.merging.running.execute import SHARD, execute, key_of
from umaf.merging.writing.identities import identity_of

Run: TypeAlias = Callable[..., Any]
"""Carries out a plan into a folder, as `execute` does."""


def merge(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    out: str | Path,
    *,
    workers: int | None = None,
    resume: bool = False,
    engine: Literal["local", "ray"] = "local",
    shard_bytes: int = SHARD,
    allow_pickle: bool = False,
    seed: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Merge what a recipe says into a new folder that transformers loads.

    Where every model is a LoRA folder, without a base it is put on, the result is a LoRA folder; it is written whole or
    not at all, and `resume` has nothing to go on from.

    Args:
        recipe: a YAML file in mergekit's form or in umaf's own, a mapping, or a `Recipe`.
        out: a folder that is not there yet, or empty.
        workers: how many tensors are merged at a time; None: one for each core.
        resume: go on from what an interrupted merge of the same recipe and inputs left.
        engine: "local" threads, or tasks of a "ray" cluster that sees the same files.
        shard_bytes: size of a file of the result, at most.
        allow_pickle: read weights that are stored as pickle too.
        seed: in the place of the recipe's.
        progress: told what is being done.

    Returns:
        The folder.

    Raises:
        ConfigError: the recipe is wrong, or models do not go together.
        CheckpointError: files are damaged, tensors are missing or have other shapes.
        OutputError: the folder is not empty, or the disk is full.
        NumericalError: an input holds NaN or infinity, or the merge makes it.
    """
    *before, last = with_seed(read_stages(recipe), seed)
    check_apart(out, (*before, last))
    if before:
        # What stops the last merge is said before the first is made.
        check_place(out)
        check_inputs((*before, last), open=partial(open_ref, allow_pickle=allow_pickle))
    run = partial(execute, workers=workers, engine=engine, progress=progress)
    with made_stages(before, out, run=run, resume=resume, allow_pickle=allow_pickle) as folders:
        last = placed(last, before, folders)
        if last.of_loras:
            merge_lora_recipe(last, out, allow_pickle=allow_pickle)
            return Path(out)
        # An interrupted run of several stages may have left the draft of a stage, and none of the result.
        begun = resume and (not before or draft_of(out).is_dir())
        plan = make_plan(last, open=partial(open_ref, allow_pickle=allow_pickle))
        run(plan, out, resume=begun, shard_bytes=shard_bytes)
    return Path(out)


@contextmanager
def made_stages(
    recipes: Sequence[Recipe],
    out: str | Path,
    *,
    run: Run = execute,
    resume: bool = False,
    allow_pickle: bool = False,
) -> Iterator[dict[str, str]]:
    """Make the merges that a result is made of, in a hidden folder beside it that goes when the result is there.

    Args:
        recipes: in the order in which they are made.
        out: the folder of the result.
        run: what carries out a plan.
        resume: go on with the one that was interrupted.
        allow_pickle: read weights that are stored as pickle too.

    Yields:
        Name of a stage to the folder that holds it.

    Example:
        >>> with made_stages([], "merged") as folders:
        ...     folders
        {}
    """
    folders: dict[str, str] = {}
    for recipe in recipes:
        stage = placed(recipe, recipes, folders)
        if stage.of_loras:
            folder = stages_of(out) / f"{stage.name}-lora"
            shutil.rmtree(
                folder, ignore_errors=True
            )  # it is made in no time, and its inputs may have changed
            merge_lora_recipe(stage, folder, allow_pickle=allow_pickle)
        else:
            plan = make_plan(stage, open=partial(open_ref, allow_pickle=allow_pickle))
            # A stage that is there was made by this very recipe of these very inputs: its name says so.
            key = key_of(plan, [identity_of(one) for one in plan.models])
            folder = stages_of(out) / f"{stage.name}-{key[:16]}"
            if not folder.exists():
                run(plan, folder, resume=resume and draft_of(folder).is_dir())
        folders[str(stage.name)] = str(folder)
    yield folders
    # After a mistake or an interruption they stay, for --resume.
    shutil.rmtree(stages_of(out), ignore_errors=True)


def placed(recipe: Recipe, recipes: Sequence[Recipe], folders: Mapping[str, str]) -> Recipe:
    """Give a recipe with the folders of its stages, and with these stages as they were written.

    Args:
        recipe: names stages.
        recipes: the stages.
        folders: name of each that was made to its folder.

    Example:
        >>> one, two = (Recipe(method="linear", models=["a", name], name=name) for name in ("first", "second"))
        >>> found = placed(two.model_copy(update={"models": one.models}), [one], {"first": "out/first"})
        >>> list(found.stages)
        ['out/first']
    """
    made = {folders[str(one.name)]: one for one in recipes if str(one.name) in folders}
    return recipe.renamed(folders).beside(made)


def plan_merge(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    allow_pickle: bool = False,
    seed: int | None = None,
) -> tuple[Plan, tuple[Recipe, ...]]:
    """Plan a merge without doing it.

    Args:
        recipe: as in `merge`.
        out: as in `merge`; None: not said yet, so that neither the folder nor the disk is looked at.
        resume: as in `merge`.
        allow_pickle: read weights that are stored as pickle too.
        seed: in the place of the recipe's.

    Returns:
        The plan of the first stage (the only one, of most recipes), and the recipes that can be planned only when it
        is made.

    Raises:
        UmafError: whatever would stop the merge before a weight is read.
    """
    recipes = with_seed(read_stages(recipe), seed)
    first, *rest = recipes
    opening = partial(open_ref, allow_pickle=allow_pickle)
    check_inputs(recipes, open=opening)
    plan = make_plan(first, open=opening)
    plan = align(plan, read_alignment(plan))
    if out is not None:
        check_apart(out, recipes)
        check_output(plan, out, resume=resume)
    return plan, tuple(rest)


def check_inputs(recipes: Sequence[Recipe], *, open: Open = open_ref) -> None:
    """Open what later merges are made of, besides earlier ones, so that a mistake is told before any is made.

    Args:
        recipes: in the order in which they are made; the first is planned at once, and finds its own mistakes.
        open: opens a model without its adapters.

    Raises:
        CheckpointError: files are missing, cut short, or do not belong together.
        AdapterError: an adapter does not fit its model.

    Example:
        >>> check_inputs([Recipe(method="linear", models=["a", "b"])])
    """
    names = {one.name for one in recipes}
    for recipe in recipes[1:]:
        for ref in recipe.refs():
            if ref.path not in names and not ref.is_lora:
                kept = tuple(one for one in ref.lora if one.path not in names)
                open_models([ref.model_copy(update={"lora": kept})], open)


def with_seed(recipes: tuple[Recipe, ...], seed: int | None) -> tuple[Recipe, ...]:
    """Give recipes another seed; None leaves their own."""
    return recipes if seed is None else tuple(one.model_copy(update={"seed": seed}) for one in recipes)


def stages_of(out: str | Path) -> Path:
    """Give the hidden folder beside a result where its stages are made."""
    target = Path(out).absolute()
    return target.parent / f".{target.name}.stages"


def check_apart(out: str | Path, recipes: tuple[Recipe, ...]) -> None:
    """Refuse to write into a model that is merged.

    Raises:
        ConfigError: the output is one of the inputs, or lies inside one.

    Example:
        >>> check_apart("merged", (Recipe(method="linear", models=["a", "b"]),))
    """
    target = os.path.realpath(out)
    for recipe in recipes:
        for ref in recipe.refs():
            for path in (ref.path, *(one.path for one in ref.lora)):
                source = os.path.realpath(os.path.expanduser(path))
                if os.path.exists(source) and (target == source or target.startswith(source + os.sep)):
                    raise ConfigError(
                        f"The output {out} lies in the model {path}, which is merged; name another folder."
                    )
