"""The options of every tensor, out of what a recipe says at its levels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from umaf.merging.contract import Method, Option
from umaf.merging.recipes.check_recipe import known_options, levels
from umaf.merging.recipes.parameters import is_constant, matches, resolve
from umaf.merging.recipes.recipe import Filtered, Options, Recipe, Value
from umaf.merging.registry import method_of


@dataclass(frozen=True)
class Setting:
    """An option in one slice.

    Attributes:
        option: which.
        says: for each merged model (or once, for an option that is one for all) what was said, first the most
            particular.
        fixed: the value, where it is the same for all tensors.
        has_fixed: it is.
    """

    option: Option
    says: tuple[tuple[Value, ...], ...]
    fixed: Any = None
    has_fixed: bool = False


def settings(
    recipe: Recipe, method: Method, own: Sequence[Sequence[Options]], shared: Sequence[Options]
) -> list[Setting]:
    """Gather what was said on every option in one slice.

    Args:
        recipe: the recipe.
        method: its method.
        own: for each merged model its options, first the most particular.
        shared: options for all models, first the most particular.

    Raises:
        ConfigError: an option without a default was not given.
    """
    found = []
    for option in known_options(method, recipe).values():
        columns = own if option.per_model else [()]
        says = tuple(_said(option.name, [*column, *shared]) for column in columns)
        for number, one in enumerate(says):
            if not one and (option.required or option.name in recipe.required):
                whose = (
                    f" for model {number + 1} of {len(says)}" if option.per_model and len(says) > 1 else ""
                )
                raise recipe.error(
                    ("method",),
                    f"{method.name} needs {option.name}{whose}, and the recipe does not give it; add it.",
                )
        fixed = not says or all(not one or is_constant(one[0]) for one in says)
        value = _value(option, [_typed(option, one[0] if one else None) for one in says]) if fixed else None
        found.append(Setting(option, says, value, fixed))
    return found


def _said(name: str, options: Iterable[Options]) -> tuple[Value, ...]:
    """Give the values of an option, up to the first that holds for all tensors."""
    said = []
    for one in options:
        if name in one:
            said.append(one[name])
            if not (isinstance(one[name], tuple) and isinstance(one[name][0], Filtered)):  # type: ignore[index]
                break
    return tuple(said)


def _typed(option: Option, value: Any) -> Any:
    if value is None:
        return option.default
    return option.check("", value)


def _value(option: Option, values: list[Any]) -> Any:
    return tuple(values) if option.per_model else values[0]


def options_of(
    found: Sequence[Setting], recipe: Recipe, name: str, names: Sequence[str], kind: str, depth: float
) -> dict[str, Any]:
    """Give the options of one tensor.

    Args:
        found: from `settings`.
        recipe: the recipe, for messages.
        name: of the tensor in the result: what filters of options that are one for all look at.
        names: of the tensor in each merged model: what filters of a model's own options look at.
        kind: its role.
        depth: of its layer, from 0 to 1.

    Raises:
        ConfigError: an option without a default was given for other tensors only, or weights add up to nothing.
    """
    options = {}
    for one in found:
        if one.has_fixed:
            options[one.option.name] = one.fixed
            continue
        searched = names if one.option.per_model else [name]
        values = []
        for said, at in zip(one.says, searched, strict=True):
            value = resolve(said, at, kind, depth)
            if value is None and (one.option.required or one.option.name in recipe.required):
                raise recipe.error(
                    ("method",),
                    f"{recipe.method} needs {one.option.name}, and no filter of it holds for {at}; add an entry "
                    "without a filter.",
                )
            values.append(_typed(one.option, value))
        options[one.option.name] = _value(one.option, values)
    _check_weights(recipe, name, options)
    return options


def _check_weights(recipe: Recipe, name: str, options: Mapping[str, Any]) -> None:
    """Refuse weights of models that a mean would have to divide by and that add up to nothing."""
    weight = options.get("weight")
    if not isinstance(weight, tuple) or abs(sum(weight)) >= 1e-8:
        return
    needs = method_of(recipe.method).needs
    changes = needs.base == "required" or (needs.base == "optional" and recipe.base is not None)
    if not changes and options.get("normalize", options.get("normalize_weights", True)):
        raise recipe.error(
            ("method",),
            f"{recipe.method}: the weights of {name} add up to 0, and a mean divides by their sum; change them.",
        )


def unsaid(found: Sequence[Setting], values: Mapping[str, Any]) -> dict[str, Any]:
    """Give those of some values whose options no level of the recipe names.

    Args:
        found: from `settings`.
        values: option to value.

    Example:
        >>> unsaid([], {"vectors": "rows"})
        {'vectors': 'rows'}
    """
    said = {one.option.name for one in found if any(one.says)}
    return {name: value for name, value in values.items() if name not in said}


def check_filters(recipe: Recipe, names: Mapping[str, str]) -> None:
    """Refuse filters that hold for no tensor.

    Args:
        recipe: the recipe.
        names: of all tensors, in the models and in the result, with their roles.

    Raises:
        ConfigError: a filter holds for none.
    """
    known: dict[str, bool] = {"*": True}
    for place, options, _ in levels(recipe):
        for option, value in options.items():
            for one in value if isinstance(value, tuple) else ():
                if not isinstance(one, Filtered):
                    break
                if one.filter not in known:
                    known[one.filter] = any(matches(one.filter, name, kind) for name, kind in names.items())
                if not known[one.filter]:
                    raise recipe.error(
                        (*place, option),
                        f"The filter {one.filter!r} of {option} holds for no tensor; it must be a part of a name, such "
                        f"as {_example(names)}.",
                    )


def _example(names: Mapping[str, str]) -> str:
    inside = [name for name, kind in names.items() if kind == "matrix"] or list(names)
    return ", ".join(inside[:2])
