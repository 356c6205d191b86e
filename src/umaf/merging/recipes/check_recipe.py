"""What a recipe alone can get wrong, before a file is opened: names, numbers of models, values of options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from umaf.errors import ConfigError, did_you_mean
from umaf.merging.contract import Method, Option
from umaf.merging.recipes.mergekit_rules import absent
from umaf.merging.recipes.parameters import leaves, unknown_role
from umaf.merging.recipes.recipe import Filtered, Recipe, Value
from umaf.merging.recipes.reference import Ref
from umaf.merging.recipes.yaml_file import Place
from umaf.merging.registry import METHODS, method_of
from umaf.merging.writing.chat_templates import check_template

SCALE = Option("scale", "number", 1.0)
"""What the merged change is multiplied by; every method that works on changes from a base takes it."""


def known_options(method: Method, recipe: Recipe) -> Mapping[str, Option]:
    """List the options that a recipe may give, by name.

    Example:
        >>> recipe = Recipe(method="ties", base="a", models=["b"])
        >>> "scale" in known_options(method_of("ties"), recipe), "t" in known_options(method_of("ties"), recipe)
        (True, False)
    """
    deltas = method.needs.base == "required" or (method.needs.base == "optional" and recipe.base is not None)
    return {**({"scale": SCALE} if deltas else {}), **method.options}


def check_recipe(recipe: Recipe) -> Method:
    """Check a recipe against its method.

    Returns:
        The method.

    Raises:
        ConfigError: an option is unknown, misplaced or out of range; there are too few or too many models, or the same
            one twice; the base is missing, or is one of the models.

    Example:
        >>> check_recipe(Recipe(method="ties", base="a", models=["b"], options={"densty": 0.2}))
        Traceback (most recent call last):
            ...
        umaf.errors.ConfigError: ties has no option 'densty'. Did you mean "density"?
    """
    if (problem := absent(recipe.method)) is not None:
        raise recipe.error(("method",), str(problem))
    if recipe.method not in METHODS.names():
        hint = did_you_mean(recipe.method, METHODS.names()) or " `umaf methods` lists them."
        raise recipe.error(("method",), f"There is no merge method {recipe.method!r}.{hint}")
    method = method_of(recipe.method)
    if recipe.chat_template is not None:
        try:
            check_template(recipe.chat_template)
        except ConfigError as problem:
            raise recipe.error(("chat_template",), str(problem)) from problem
    _check_tokenizer(recipe)
    everywhere = recipe.base is not None or (recipe.slices and all(one.base for one in recipe.slices))
    # LoRAs are changes already.
    if method.needs.base == "required" and not (everywhere or recipe.of_loras):
        raise recipe.error(
            ("method",),
            f"{method.name} works on changes from a base; say which model is the base{_or_fetch(recipe)}.",
        )
    for place, options, one_model in levels(recipe):
        for name, value in options.items():
            _check_option(recipe, method, (*place, name), value, one_model)
    _check_models(recipe, method, [one.model for one in recipe.models], ("models",), recipe.base)
    for number, one in enumerate(recipe.slices):
        place: Place = ("slices", number, "sources")
        _check_models(recipe, method, [piece.model for piece in one.sources], place, one.base or recipe.base)
        lengths = [piece.layers[1] - piece.layers[0] for piece in one.sources]
        if min(lengths) < 1 or len(set(lengths)) > 1 or min(piece.layers[0] for piece in one.sources) < 0:
            runs = ", ".join(f"[{piece.layers[0]}, {piece.layers[1]}]" for piece in one.sources)
            raise recipe.error(place, f"The sources of a slice must have as many layers each, got {runs}.")
    return method


def _check_tokenizer(recipe: Recipe) -> None:
    """Refuse tokens and rows of a model that is not merged."""
    if recipe.tokenizer is None:
        return
    paths = [ref.path for ref in recipe.refs()]
    asked = {"The tokenizer": recipe.tokenizer.source} | {
        f"The row of the token {token!r}": one.source for token, one in recipe.tokenizer.tokens.items()
    }
    for what, source in asked.items():
        if isinstance(source, Ref) and source.path not in paths:
            words = ["union", "base", *paths] if what == "The tokenizer" else paths
            hint = did_you_mean(source.path, words) or f" It can be {', '.join(words)}."
            raise recipe.error(
                ("tokenizer",), f"{what} is to come from {source}, which is none of the models.{hint}"
            )


def _or_fetch(recipe: Recipe) -> str:
    """Say what helps where models may be LoRAs of the hub, which nobody is asked for before they are read."""
    away = [one.model for one in recipe.models if one.model.path.count("/") == 1 and not one.model.lora]
    away = [ref for ref in away if not ref.folder.exists()]
    return f", or fetch {away[0].path} first if it is a LoRA (`hf download {away[0].path}`)" if away else ""


def levels(recipe: Recipe) -> Iterator[tuple[Place, Mapping[str, Value], bool]]:
    """Yield every set of options of a recipe: (its place, the options, they are one model's).

    Example:
        >>> [place for place, _, _ in levels(Recipe(method="ties", models=["a", "b"]))]
        [('options',), ('models', 0, 'options'), ('models', 1, 'options')]
    """
    yield ("options",), recipe.options, False
    for number, one in enumerate(recipe.models):
        yield ("models", number, "options"), one.options, True
    for number, one in enumerate(recipe.slices):
        yield ("slices", number, "options"), one.options, False
        for index, piece in enumerate(one.sources):
            yield ("slices", number, "sources", index, "options"), piece.options, True


def _check_option(recipe: Recipe, method: Method, place: Place, value: Value, one_model: bool) -> None:
    known = known_options(method, recipe)
    name = str(place[-1])
    if name not in known:
        hint = did_you_mean(name, known) or f" Its options are {', '.join(sorted(known)) or 'none'}."
        raise recipe.error(place, f"{method.name} has no option {name!r}.{hint}")
    option = known[name]
    if one_model and not option.per_model:
        raise recipe.error(
            place, f"{method.name}: {name} is one for all models; move it to the recipe's options."
        )
    for number, entry in enumerate(value if isinstance(value, tuple) else (value,)):
        inner = entry.value if isinstance(entry, Filtered) else value if number == 0 else None
        if isinstance(inner, tuple) and option.kind != "number":
            raise recipe.error(
                place, f"{method.name}: {name} cannot run over the layers, being a {option.kind}."
            )
        if isinstance(entry, Filtered) and (there := unknown_role(entry.filter)) is not None:
            raise recipe.error(place, f"The filter {entry.filter!r} names no role; roles are {there}.")
    for leaf in leaves(value):
        try:
            option.check(method.name, leaf)
        except ConfigError as problem:
            raise recipe.error(place, str(problem)) from problem


def _check_models(
    recipe: Recipe, method: Method, refs: Sequence[Ref], place: Place, base: Ref | None
) -> None:
    if not refs:
        return
    seen: dict[Ref, int] = {}
    for number, ref in enumerate(refs):
        if ref in seen:
            raise recipe.error(
                (*place, number, "model"),
                f"{ref} is merged twice; name it once and give it twice the weight.",
            )
        seen[ref] = number
    deltas = method.needs.base == "required" or (method.needs.base == "optional" and base is not None)
    merged = [ref for ref in refs if not (deltas and ref == base)]
    if base is not None and len(merged) < len(refs) and place == ("models",):
        raise recipe.error(
            (*place, seen[base], "model"),
            f"{base} is the base and a model too; its change is 0, leave it out.",
        )
    low, high = method.needs.models
    if len(merged) < low or (high is not None and len(merged) > high):
        wanted = f"{low}" if high == low else f"{low} or more" if high is None else f"{low} to {high}"
        besides = " besides the base" if deltas else ""
        among = f", the base ({base}) among them; take one of the others for it" if base in merged else ""
        raise recipe.error(
            place,
            f"{method.name} merges {wanted} model{'s' * (wanted != '1')}{besides}, got {len(merged)}{among}.",
        )
