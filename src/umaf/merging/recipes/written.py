"""A recipe as umaf's own form writes it, so that what a merged folder says can be run again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umaf.merging.recipes.recipe import Filtered, Recipe, Token, Tokenizer
from umaf.merging.recipes.reference import Ref, parse_ref


def written(recipe: Recipe) -> dict[str, Any]:
    """Write a recipe in umaf's own form.

    Args:
        recipe: of one merge; the merges that were made for it are its stages.

    Returns:
        What YAML and JSON can hold; `read_recipe` makes the recipe of it.

    Example:
        >>> written(Recipe(method="linear", models=["a", "b"], seed=1))
        {'umaf': 1, 'method': 'linear', 'models': ['a', 'b'], 'seed': 1}
    """
    stages = recipe.stages
    recipe = recipe.renamed({folder: str(one.name) for folder, one in stages.items()})
    found: dict[str, Any] = {"umaf": 1, "method": recipe.method}
    if recipe.base is not None:
        found["base"] = _ref(recipe.base)
    if recipe.models:
        found["models"] = [
            _with_options({"model": _ref(one.model)}, one.options) if one.options else _ref(one.model)
            for one in recipe.models
        ]
    if recipe.slices:
        found["slices"] = [_slice(one) for one in recipe.slices]
    found = _with_options(found, recipe.options)
    for key in ("dtype", "chat_template"):
        if getattr(recipe, key) is not None:
            found[key] = getattr(recipe, key)
    if recipe.tokenizer is not None:
        found["tokenizer"] = _tokenizer(recipe.tokenizer)
    if recipe.allow:
        found["allow"] = list(recipe.allow)
    if recipe.seed:
        found["seed"] = recipe.seed
    if stages:
        found["stages"] = {str(one.name): _body(one) for one in stages.values()}
    return found


def _body(recipe: Recipe) -> dict[str, Any]:
    return {key: value for key, value in written(recipe).items() if key != "umaf"}


def _ref(ref: Ref) -> Any:
    text = str(ref)
    if parse_ref(text) == ref:
        return text
    found: dict[str, Any] = {"model": {"path": ref.path}}
    if ref.revision is not None:
        found["model"]["revision"] = ref.revision
    if ref.lora:
        found["lora"] = [_ref(one) for one in ref.lora]
    return found


def _with_options(found: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    return {**found, "options": {name: _value(one) for name, one in options.items()}} if options else found


def _value(value: Any) -> Any:
    if isinstance(value, Filtered):
        return {"filter": value.filter, "value": _value(value.value)}
    return [_value(one) for one in value] if isinstance(value, (tuple, list)) else value


def _slice(one: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "sources": [
            _with_options({"model": _ref(source.model), "layers": list(source.layers)}, source.options)
            for source in one.sources
        ]
    }
    if one.base is not None:
        found["base"] = _ref(one.base)
    return _with_options(found, one.options)


def _tokenizer(one: Tokenizer) -> dict[str, Any]:
    found: dict[str, Any] = {"source": _ref(one.source) if isinstance(one.source, Ref) else one.source}
    if one.tokens:
        found["tokens"] = {token: _token(choice) for token, choice in one.tokens.items()}
    if one.pad_to_multiple_of is not None:
        found["pad_to_multiple_of"] = one.pad_to_multiple_of
    return found


def _token(choice: Token) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if choice.zero:
        found["source"] = {"kind": "zero"}
    elif choice.source is not None and (choice.token is not None or choice.token_id is not None):
        found["source"] = {"kind": "model_token", "model": _ref(choice.source)}
        key = "token" if choice.token is not None else "token_id"
        found["source"][key] = getattr(choice, key)
    elif choice.source is not None:
        found["source"] = _ref(choice.source)
    if choice.force:
        found["force"] = True
    return found
