"""mergekit's YAML as a recipe: its keys, its parameters under the names they have here, and its defaults.

What mergekit's methods mean is said in the words of the methods here: its `ties` trims each tensor, elects by weighted
values and divides by weights; its `dare_*` keep the sum of magnitudes. Parameters of the method here (`trim: model`)
may stand beside mergekit's and go before its defaults, and methods that mergekit has not take their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from umaf.errors import did_you_mean
from umaf.merging.contract import Method
from umaf.merging.recipes.mergekit_rules import IDLE, MIXTURES, PARAMETERS, RULES, Rule, absent
from umaf.merging.recipes.parameters import mapped, read_value
from umaf.merging.recipes.reading import (
    Reading,
    read_dtype,
    read_layers,
    read_list,
    read_model,
    read_seed,
    read_text,
    read_tokenizer,
    read_words,
)
from umaf.merging.recipes.recipe import Filtered, Input, Piece, Recipe, Scalar, Slice, Tokenizer, Value
from umaf.merging.recipes.reference import Ref
from umaf.merging.recipes.yaml_file import Document, Place
from umaf.merging.registry import METHODS, method_of

_TOP = (
    "merge_method",
    "models",
    "slices",
    "base_model",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer",
    "tokenizer_source",
    "chat_template",
    "name",
    "modules",
    "int8_mask",
    "random_seed",
    "allow",
)


def from_mergekit(document: Document) -> Recipe:
    """Read one document of mergekit's form.

    Args:
        document: from `yaml_file`, or a mapping in a `Document`.

    Raises:
        ConfigError: what mergekit would refuse, and what it would ignore: unknown keys and parameters.
        RegistryError: there is no such method.

    Example:
        >>> from umaf.merging.recipes.yaml_file import read_documents
        >>> text = "merge_method: slerp\\nbase_model: a\\nmodels: [{model: b}, {model: a}]\\nparameters: {t: 0.25}"
        >>> recipe = from_mergekit(read_documents(text)[0])
        >>> [str(one.model) for one in recipe.models], dict(recipe.options)
        (['a', 'b'], {'t': 0.25})
    """
    data = document.data
    if not isinstance(data, dict):
        raise document.error((), f"A recipe is a mapping with the key merge_method, got {data!r}.")
    if "merge_method" not in data and "method" in data:
        raise document.error(
            ("method",), "A recipe with the key method is in umaf's own form; begin it with umaf: 1."
        )
    _check_keys(document)
    name = _method_name(document)
    method, rule = method_of(name), RULES.get(name, Rule())
    read = Reading(document)
    read.line(("method",), ("merge_method",))
    base = read_model(read, data.get("base_model"), ("base_model",), ("base",))
    options = _options(read, data.get("parameters"), ("parameters",), ("options",), (method, rule))
    models = _models(read, data.get("models"), (method, rule))
    slices = _slices(read, data.get("slices"), (method, rule))
    if bool(models) == bool(slices):
        raise document.error((), "A recipe has either models or slices; give one of them.")
    given = models, slices
    models, slices = _base_among(method, rule, base, models, slices)
    for key in ("int8_mask",):
        if key in data:
            read.note(f"{key} changes nothing here.")
    seed = data.get("random_seed", read.seed)
    read.line(("chat_template",), ("chat_template",))
    allow = read_words(read, data.get("allow"), ("allow",))
    return Recipe(
        method=name,
        models=models,
        base=base,
        options=_with_defaults(options, rule.defaults),
        slices=slices,
        dtype=_stored_dtype(read, data),
        tokenizer=_tokenizer(read, data),
        chat_template=read_text(read, data.get("chat_template"), ("chat_template",)),
        seed=read_seed(read, seed, ("random_seed",)),
        name=read_text(read, data.get("name"), ("name",)),
        allow=allow,
        required=rule.required,
        notes=tuple(read.notes),
        lines=_moved_lines(read.lines, given, (models, slices)),
        file=document.source,
    )


def _check_keys(document: Document) -> None:
    data = document.data
    for key in data:
        if key in MIXTURES:
            raise document.error(
                (key,), f"{key} is of mergekit-moe, which makes a mixture of models; umaf merge makes none."
            )
    under: dict[str, str] = dict.fromkeys([*PARAMETERS, "embed_slerp"], "it belongs under parameters")
    document.check_keys((), data, _TOP, "A recipe", elsewhere=under)
    if "modules" in data:
        raise document.error(
            ("modules",), "modules is not read here; write one recipe for the module that is merged."
        )


def _method_name(document: Document) -> str:
    name = document.data.get("merge_method")
    if not isinstance(name, str):
        raise document.error((), "A recipe needs the key merge_method; `umaf methods` lists what it can be.")
    if (problem := absent(name)) is not None:
        raise document.error(("merge_method",), str(problem))
    if name not in METHODS.names():
        hint = did_you_mean(name, METHODS.names()) or " `umaf methods` lists them."
        raise document.error(("merge_method",), f"There is no merge method {name!r}.{hint}")
    return name


def _models(read: Reading, raw: Any, kind: tuple[Method, Rule]) -> tuple[Input, ...]:
    found = []
    for number, one in enumerate(read_list(read, raw, ("models",))):
        place: Place = ("models", number)
        if not isinstance(one, Mapping):
            raise read.document.error(
                place, f"An entry of models is a mapping with the key model, got {one!r}."
            )
        keys = ("model", "parameters", "layer_range")
        read.document.check_keys(place, one, keys, "An entry of models", elsewhere=_beside(one))
        model = read_model(read, one.get("model"), (*place, "model"), (*place, "model"), needed=True)
        options = _options(
            read, one.get("parameters"), (*place, "parameters"), (*place, "options"), kind, True
        )
        layers = None
        if "layer_range" in one:
            layers = read_layers(read, one["layer_range"], (*place, "layer_range"), (*place, "layers"))
        found.append(Input(model=model, options=options, layers=layers))
    return tuple(found)


def _beside(entry: Mapping[str, Any]) -> dict[str, str]:
    """Say what to do with keys that people write beside a model."""
    name = entry.get("model")
    signs = {"revision": "@", "lora": "+"}
    return {
        **dict.fromkeys(PARAMETERS, "it belongs under its parameters"),
        **{key: f"write model: {name}{sign}{entry[key]}" for key, sign in signs.items() if key in entry},
    }


def _slices(read: Reading, raw: Any, kind: tuple[Method, Rule]) -> tuple[Slice, ...]:
    found = []
    for number, one in enumerate(read_list(read, raw, ("slices",))):
        place: Place = ("slices", number)
        if not isinstance(one, Mapping):
            raise read.document.error(place, f"A slice is a mapping with the key sources, got {one!r}.")
        read.document.check_keys(place, one, ("sources", "base_model", "parameters"), "A slice")
        base = read_model(read, one.get("base_model"), (*place, "base_model"), (*place, "base"))
        options = _options(read, one.get("parameters"), (*place, "parameters"), (*place, "options"), kind)
        pieces = []
        for index, source in enumerate(read_list(read, one.get("sources"), (*place, "sources"), needed=True)):
            spot: Place = (*place, "sources", index)
            if not isinstance(source, Mapping):
                raise read.document.error(
                    spot, f"A source is a mapping with model and layer_range, got {source!r}."
                )
            keys = ("model", "layer_range", "parameters")
            read.document.check_keys(spot, source, keys, "A source", elsewhere=_beside(source))
            if "layer_range" not in source:
                raise read.document.error(
                    spot, "A source of a slice needs layer_range: [first, one after the last]."
                )
            model = read_model(read, source.get("model"), (*spot, "model"), (*spot, "model"), needed=True)
            layers = read_layers(read, source["layer_range"], (*spot, "layer_range"), (*spot, "layers"))
            own = _options(
                read, source.get("parameters"), (*spot, "parameters"), (*spot, "options"), kind, True
            )
            pieces.append(Piece(model=model, layers=layers, options=own))
        found.append(Slice(sources=tuple(pieces), base=base, options=options))
    return tuple(found)


def _options(
    read: Reading, raw: Any, place: Place, goes: Place, kind: tuple[Method, Rule], one_model: bool = False
) -> dict[str, Value]:
    """Read parameters: `place` is where they stand, `goes` where they stand in the recipe that is made."""
    method, rule = kind
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        raise read.document.error(place, f"parameters is a mapping, got {raw!r}.")
    known = {*method.options, *rule.required, *rule.idle, *IDLE, "lambda", "scale", "random_seed"}
    if {"combine", "normalize"} & set(method.options):
        known.add("normalize")
    if name_known := RULES.get(method.name):
        known |= set(name_known.defaults) | ({"rescale"} if "density" in name_known.defaults else set())
    found: dict[str, Value] = {}
    for key, one in raw.items():
        spot = (*place, key)
        if key not in known and key in _TOP:
            raise read.document.error(
                spot,
                f"{method.name} has no parameter {key!r}; it is a key of the recipe itself, beside merge_method.",
            )
        if key not in known:
            hint = did_you_mean(str(key), sorted(known)) or f" Its parameters are {', '.join(sorted(known))}."
            raise read.document.error(spot, f"{method.name} has no parameter {key!r}.{hint}")
        if key == "random_seed":
            read.seed = one
            read.note("random_seed is taken for the seed of the merge; mergekit ignores it under parameters.")
        elif key in IDLE or key in rule.idle:
            read.note(f"{key} changes nothing in {method.name}.")
        else:
            name, value = _translated(read, key, read_value(one, read.document, spot), (method, spot))
            if name is None:
                continue
            if one_model and not (name in method.options and method.options[name].per_model):
                raise read.document.error(
                    spot,
                    f"{key} is one for all models; mergekit ignores it here, put it under the recipe's parameters.",
                )
            found[name] = value
            read.line((*goes, name), spot)
    return found


def _translated(read: Reading, key: str, value: Value, at: tuple[Method, Place]) -> tuple[str | None, Value]:
    """Give a parameter's name and value here; None for the name where it changes nothing."""
    method, spot = at
    option = method.options.get(key)
    if key == "lambda":
        return "scale", value
    if key == "normalize" and option is None:
        return "combine", mapped(value, _flag(read, spot, "mean", "sum"))
    if key == "rescale":
        if option is None:
            if any(_wants(read, spot, value)):
                raise read.document.error(spot, f"{method.name} does not rescale here; leave rescale out.")
            return None, value
        return key, mapped(value, _flag(read, spot, "l1", "none"))
    if option is not None and option.kind == "flag":
        return key, mapped(value, _flag(read, spot, True, False))
    return key, value


def _wants(read: Reading, spot: Place, value: Value) -> list[bool]:
    seen: list[bool] = []

    def look(one: Scalar) -> Scalar:
        seen.append(bool(_flag(read, spot, True, False)(one)))
        return one

    mapped(value, look)
    return seen


def _flag(read: Reading, spot: Place, yes: Scalar, no: Scalar) -> Callable[[Scalar], Scalar]:
    def change(value: Scalar) -> Scalar:
        if isinstance(value, str) and value in {"unbiased", "l1", "none"} and spot[-1] == "rescale":
            return value
        if not isinstance(value, bool) and value not in {0, 1}:
            raise read.document.error(spot, f"{spot[-1]} must be true or false, got {value!r}.")
        return yes if value else no

    return change


def _with_defaults(options: dict[str, Value], defaults: Mapping[str, Scalar]) -> dict[str, Value]:
    """Add mergekit's defaults where the recipe says nothing, for some tensors or for all."""
    whole = dict(options)
    for name, default in defaults.items():
        given = whole.get(name)
        if given is None:
            whole[name] = default
        elif isinstance(given, tuple) and isinstance(given[0], Filtered):
            whole[name] = (*given, Filtered(value=default))  # type: ignore[arg-type]
    return whole


def _base_among(
    method: Method, rule: Rule, base: Ref | None, models: tuple[Input, ...], slices: tuple[Slice, ...]
) -> tuple[tuple[Input, ...], tuple[Slice, ...]]:
    """Put the base among the models, or take it out of them, as the method here wants it."""
    if base is None:
        return models, slices
    wants_deltas = method.needs.base != "none"
    if wants_deltas:
        return tuple(one for one in models if one.model != base), slices
    if not (rule.base_is_model or rule.base_first) or (models and all(one.model.is_lora for one in models)):
        return models, slices
    if models and all(one.model != base for one in models):
        models = (*models, Input(model=base))
    if rule.base_first:
        models = tuple(sorted(models, key=lambda one: one.model != base))
        slices = tuple(_base_first(one, one.base or base) for one in slices)
    return models, slices


def _moved_lines(
    lines: Mapping[Place, int],
    old: tuple[tuple[Input, ...], tuple[Slice, ...]],
    new: tuple[tuple[Input, ...], tuple[Slice, ...]],
) -> dict[Place, int]:
    """Let the lines of models and sources follow where these went."""
    lists: list[tuple[Place, Sequence[Any], Sequence[Any]]] = [(("models",), old[0], new[0])]
    for number, (before, after) in enumerate(zip(old[1], new[1], strict=True)):
        lists.append((("slices", number, "sources"), before.sources, after.sources))
    went: dict[Place, Place] = {}
    for place, before, after in lists:
        there = {id(one): number for number, one in enumerate(after)}
        went |= {(*place, number): (*place, there.get(id(one), -1)) for number, one in enumerate(before)}
    moved: dict[Place, int] = {}
    for place, line in lines.items():
        head = next((place[:length] for length in (2, 4) if place[:length] in went), ())
        moved[went.get(head, ()) + place[len(head) :]] = line
    return moved


def _base_first(one: Slice, base: Ref) -> Slice:
    pieces = one.sources
    if all(piece.model != base for piece in pieces):
        pieces = (*pieces, Piece(model=base, layers=pieces[0].layers))
    return one.model_copy(update={"sources": tuple(sorted(pieces, key=lambda piece: piece.model != base))})


def _stored_dtype(read: Reading, data: Mapping[str, Any]) -> Any:
    compute = read_dtype(read, data.get("dtype"), ("dtype",))
    stored = read_dtype(read, data.get("out_dtype"), ("out_dtype",))
    if compute is not None and stored is not None and compute != "float32":
        read.note(
            f"dtype {compute} is not used: arithmetic is float32 here, with one rounding to {stored} at the end."
        )
    return stored or compute


def _tokenizer(read: Reading, data: Mapping[str, Any]) -> Tokenizer | None:
    if data.get("tokenizer") is not None and data.get("tokenizer_source") is not None:
        raise read.document.error(
            ("tokenizer",), "tokenizer and tokenizer_source say the same; keep tokenizer."
        )
    if data.get("tokenizer_source") is not None:
        return read_tokenizer(read, {"source": data["tokenizer_source"]}, ("tokenizer_source",))
    return read_tokenizer(read, data.get("tokenizer"), ("tokenizer",))
