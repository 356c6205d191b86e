"""Recipes from files, texts and mappings, in either form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from umaf.errors import ConfigError
from umaf.merging.recipes.check_recipe import check_recipe
from umaf.merging.recipes.mergekit import from_mergekit
from umaf.merging.recipes.own_form import from_own
from umaf.merging.recipes.recipe import Recipe
from umaf.merging.recipes.reference import Ref
from umaf.merging.recipes.yaml_file import Document, read_documents, read_file


def read_stages(source: str | Path | Mapping[str, Any] | Recipe) -> tuple[Recipe, ...]:
    """Read a recipe and the merges it builds on.

    A document with the top-level key `umaf` is in umaf's own form (see `own_form`); any other is in mergekit's. A file
    of several documents is read as mergekit-multi reads it: documents have a `name`, which the one that gives the
    result may lack, and models may be names.

    Args:
        source: a path to a YAML file, YAML text (if it has a line break), a mapping, or a recipe.

    Returns:
        Recipes in an order in which they can be made; the last of them is the result. A model whose path is the name of
        an earlier one stands for that merge: see `Recipe.renamed`.

    Raises:
        ConfigError: something in it is wrong; the message has file and line.

    Example:
        >>> one, = read_stages({"umaf": 1, "method": "ties", "base": "a", "models": ["b", "c"]})
        >>> one.method, [str(ref) for ref in one.refs()]
        ('ties', ['a', 'b', 'c'])
    """
    if isinstance(source, Recipe):
        check_recipe(source)
        return (source,)
    if isinstance(source, Mapping):
        documents = [Document(dict(source))]
    elif isinstance(source, str) and "\n" in source:
        documents = read_documents(source)
    else:
        documents = read_file(source)
    recipes: list[Recipe] = []
    for document in documents:
        own = isinstance(document.data, dict) and "umaf" in document.data
        found = from_own(document) if own else (from_mergekit(document),)
        if found[-1].name is None and any(one.name is None for one in recipes):
            raise document.error(
                (),
                "Two documents of a recipe have no name, and only the last merge needs none; add name: to one.",
            )
        recipes.extend(found)
    recipes = _of_loras(_in_order(recipes))
    for recipe in recipes:
        check_recipe(recipe)
    return tuple(recipes)


def _of_loras(recipes: Iterable[Recipe]) -> list[Recipe]:
    """Mark the recipes whose models are LoRA folders, or stages that will be."""
    names: set[str | None] = set()
    found = []
    for recipe in recipes:
        refs = [one.model for one in recipe.models]
        loras = bool(refs) and all(ref.is_lora or (ref.path in names and not ref.lora) for ref in refs)
        names |= {recipe.name} if loras and recipe.name is not None else set()
        found.append(recipe.model_copy(update={"loras": True}) if loras else recipe)
    return found


def read_recipe(source: str | Path | Mapping[str, Any] | Recipe) -> Recipe:
    """Read a recipe of one merge; see `read_stages`.

    Raises:
        ConfigError: something in it is wrong, or it has several stages.

    Example:
        >>> read_recipe("merge_method: ties\\nbase_model: a\\nmodels: [{model: b}]\\nparameters: {weight: 1}").dtype
    """
    recipes = read_stages(source)
    if len(recipes) > 1:
        raise ConfigError(f"{recipes[-1].file} has {len(recipes)} merges; read it with read_stages.")
    return next(iter(recipes))


def needed_stages(recipe: Recipe, names: Mapping[str, Any]) -> list[str]:
    """List the stages a recipe is made of.

    Args:
        recipe: that names them as models.
        names: of the stages there are.

    Example:
        >>> needed_stages(Recipe(method="linear", models=["first", "org/b"]), {"first": None})
        ['first']
    """
    refs: list[Ref] = [part for ref in recipe.refs() for part in (ref, *ref.lora)]
    return [ref.path for ref in refs if ref.path in names]


def _in_order(recipes: list[Recipe]) -> tuple[Recipe, ...]:
    """Put stages before what is made of them; otherwise the order stays."""
    named: dict[str, Recipe] = {}
    for recipe in recipes:
        if recipe.name is not None and named.setdefault(recipe.name, recipe) is not recipe:
            raise ConfigError(
                f"{recipe.file} has two stages called {recipe.name!r}; give one of them another name."
            )
    done: dict[int, Recipe] = {}
    open_now: set[int] = set()

    def visit(recipe: Recipe) -> None:
        if id(recipe) in done:
            return
        if id(recipe) in open_now:
            raise ConfigError(
                f"{recipe.file}: the stage {recipe.name!r} is made of itself; break the circle."
            )
        open_now.add(id(recipe))
        for name in needed_stages(recipe, named):
            visit(named[name])
        done[id(recipe)] = recipe

    for recipe in recipes:
        visit(recipe)
    wanted = {name for recipe in recipes for name in needed_stages(recipe, named)}
    last = [recipe for recipe in done.values() if recipe.name is None or recipe.name not in wanted]
    if len(last) > 1:
        spare = ", ".join(str(one.name) for one in last[:-1])
        raise ConfigError(
            f"{last[0].file}: nothing is made of {spare}, and a recipe has one result; use it, or leave it out."
        )
    return tuple(done.values())
