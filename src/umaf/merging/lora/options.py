"""Options of a recipe of LoRA folders that differ from tensor to tensor: gradients over layers, and filters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from umaf.merging.planning.outline import depth_of, layer_count, layer_of
from umaf.merging.planning.roles import role
from umaf.merging.planning.settings import check_filters, options_of, settings
from umaf.merging.recipes.check_recipe import levels
from umaf.merging.recipes.parameters import is_constant
from umaf.merging.recipes.recipe import Recipe
from umaf.merging.registry import method_of

OptionsAt: TypeAlias = Callable[[str], Mapping[str, Any]]
"""Gives the options of a tensor by its name, `scale` among them."""

Vary: TypeAlias = Callable[[Mapping[str, tuple[int, ...]], "Mapping[str, Any] | None"], OptionsAt]
"""Makes that out of the shapes of all tensors that adapters change, by name, and the config of their base."""


def varies(recipe: Recipe) -> bool:
    """Tell whether an option of a recipe differs between tensors.

    Example:
        >>> one = Recipe(method="task_arithmetic", base="a", models=["b"], options={"weight": (0.0, 1.0)})
        >>> varies(one)
        True
    """
    return any(not is_constant(value) for _, options, _ in levels(recipe) for value in options.values())


def vary_by(recipe: Recipe) -> Vary:
    """Read the options of a recipe tensor by tensor, as a merge of checkpoints does.

    Gradients run over the layers of the base where its config is at hand, and else up to the last layer that an
    adapter changes.

    Args:
        recipe: whose models are LoRA folders.

    Raises:
        ConfigError: from what it returns: a filter holds for no tensor, or an option is not given for all.

    Example:
        >>> recipe = Recipe(method="task_arithmetic", base="a", models=["b"], options={"weight": (0.0, 1.0)})
        >>> at = vary_by(recipe)({f"layers.{layer}.up.weight": (2, 2) for layer in range(3)}, None)
        >>> at("layers.1.up.weight")["weight"]
        (0.5,)
    """
    # An option that mergekit wants to be given has its usual value here, as it does where all tensors share theirs.
    plain = recipe.model_copy(update={"required": ()})

    def vary(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any] | None) -> OptionsAt:
        places = {name: layer_of(name) for name in shapes}
        blocks = any(places.values())
        kinds = {name: role(name, shape, blocks=blocks) for name, shape in shapes.items()}
        check_filters(recipe, kinds)
        last = max((place[1] for place in places.values() if place is not None), default=0)
        layers = max(layer_count(config or {}) or 0, last + 1)
        own = [[one.options] for one in recipe.models]
        found = settings(plain, method_of(recipe.method), own, [recipe.options])

        def at(name: str) -> Mapping[str, Any]:
            place = layer_of(name)
            depth = depth_of(place[1], layers) if place else 0.0
            kind = kinds.get(name, "vector")
            return options_of(found, plain, name, [name] * len(recipe.models), kind, depth)

        return at

    return vary
