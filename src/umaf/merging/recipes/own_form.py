"""umaf's own form of a recipe: fewer words than mergekit's, one meaning each, and nothing that is silently ignored.

    umaf: 1                      # the form's version; what tells it from mergekit's
    method: ties                 # `umaf methods`
    base: org/base
    models:
      - org/maths                # path, hub id, model@revision, model+lora
      - model: org/code
        options: {weight: 0.7}   # of this model
    options:                     # of the method; scale multiplies the merged change
      density: [{filter: mlp, value: [0.1, 0.3]}, {value: 0.2}]
      scale: 0.8
    dtype: bfloat16              # of the result; the donor's without it
    seed: 0
    tokenizer: {source: union}
    chat_template: chatml
    allow: [rope_theta]          # differences of config.json that are taken as they are

In the place of `models`, `slices` says which layers go where: `[{sources: [{model:, layers: [0, 8], options:}], base:,
options:}]`. A model may be a merge itself, `model: {method:, models:, …}`, and `stages: {name: {method:, …}}` gives
merges that are made first and that models name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umaf.merging.recipes.parameters import read_value
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
from umaf.merging.recipes.recipe import Input, Piece, Recipe, Slice, Value
from umaf.merging.recipes.reference import Ref
from umaf.merging.recipes.yaml_file import Document, Place

_BODY = (
    "method",
    "models",
    "base",
    "options",
    "slices",
    "dtype",
    "tokenizer",
    "chat_template",
    "seed",
    "allow",
    "name",
)


def from_own(document: Document) -> tuple[Recipe, ...]:
    """Read one document of umaf's own form.

    Args:
        document: from `yaml_file`, or a mapping in a `Document`.

    Returns:
        The stages and nested merges, each before what is made of it, and last the recipe itself.

    Raises:
        ConfigError: a key or a value is wrong.

    Example:
        >>> inner = {"method": "linear", "models": ["a", "b"]}
        >>> recipes = from_own(Document({"umaf": 1, "method": "slerp", "models": [{"model": inner}, "c"]}))
        >>> [(one.name, [str(ref) for ref in one.refs()]) for one in recipes]
        [('stage-1', ['a', 'b']), (None, ['stage-1', 'c'])]
    """
    data = document.data
    document.check_keys((), data, ("umaf", *_BODY, "stages"), "A recipe")
    if data.get("umaf") != 1 or isinstance(data.get("umaf"), bool):
        raise document.error(
            ("umaf",), f"umaf must be 1, the only version of this form, got {data.get('umaf')!r}."
        )
    stages = data.get("stages") or {}
    if not isinstance(stages, Mapping):
        raise document.error(("stages",), f"stages is a mapping of name to recipe, got {stages!r}.")
    made: list[Recipe] = []
    for name, body in stages.items():
        if isinstance(body, Mapping) and "name" in body:
            raise document.error(
                ("stages", name, "name"), "A stage has the name it stands under; leave name out."
            )
        made.append(_body(document, body, ("stages", name), made).model_copy(update={"name": str(name)}))
    made.append(
        _body(document, {key: one for key, one in data.items() if key not in {"umaf", "stages"}}, (), made)
    )
    return tuple(made)


def _body(document: Document, body: Any, place: Place, made: list[Recipe]) -> Recipe:
    if not isinstance(body, Mapping):
        raise document.error(place, f"A recipe is a mapping with the key method, got {body!r}.")
    document.check_keys(place, body, _BODY, "A recipe")
    if not isinstance(body.get("method"), str):
        raise document.error(place, "A recipe needs the key method.")
    read = Reading(document)
    for key in ("method", "chat_template"):
        read.line((key,), (*place, key))
    models = _models(read, body.get("models"), (*place, "models"), made)
    slices = _slices(read, body.get("slices"), (*place, "slices"))
    if bool(models) == bool(slices):
        raise document.error(place, "A recipe has either models or slices; give one of them.")
    return Recipe(
        method=body["method"],
        models=models,
        base=read_model(read, body.get("base"), (*place, "base"), ("base",)),
        options=_options(read, body.get("options"), (*place, "options"), ("options",)),
        slices=slices,
        dtype=read_dtype(read, body.get("dtype"), (*place, "dtype")),
        tokenizer=read_tokenizer(read, body.get("tokenizer"), (*place, "tokenizer")),
        chat_template=read_text(read, body.get("chat_template"), (*place, "chat_template")),
        seed=read_seed(read, body.get("seed", 0), (*place, "seed")),
        allow=read_words(read, body.get("allow"), (*place, "allow")),
        name=read_text(read, body.get("name"), (*place, "name")),
        lines=read.lines,
        file=document.source,
    )


def _models(read: Reading, raw: Any, place: Place, made: list[Recipe]) -> tuple[Input, ...]:
    found = []
    for number, one in enumerate(read_list(read, raw, place)):
        spot, goes = (*place, number), ("models", number)
        if not isinstance(one, Mapping):
            found.append(Input(model=read_model(read, one, spot, (*goes, "model"), needed=True)))
            continue
        read.document.check_keys(spot, one, ("model", "options"), "An entry of models")
        inner = one.get("model")
        if isinstance(inner, Mapping) and "method" in inner:
            nested = _body(read.document, inner, (*spot, "model"), made)
            named = nested if nested.name else nested.model_copy(update={"name": _fresh(made)})
            made.append(named)
            model = Ref(path=str(named.name))
        else:
            model = read_model(read, inner, (*spot, "model"), (*goes, "model"), needed=True)
        options = _options(read, one.get("options"), (*spot, "options"), (*goes, "options"))
        found.append(Input(model=model, options=options))
    return tuple(found)


def _fresh(made: list[Recipe]) -> str:
    taken = {one.name for one in made}
    return next(name for number in range(1, len(made) + 2) if (name := f"stage-{number}") not in taken)


def _slices(read: Reading, raw: Any, place: Place) -> tuple[Slice, ...]:
    found = []
    for number, one in enumerate(read_list(read, raw, place)):
        spot, goes = (*place, number), ("slices", number)
        if not isinstance(one, Mapping):
            raise read.document.error(spot, f"A slice is a mapping with the key sources, got {one!r}.")
        read.document.check_keys(spot, one, ("sources", "base", "options"), "A slice")
        sources = read_list(read, one.get("sources"), (*spot, "sources"), needed=True)
        pieces = [
            _piece(read, source, (*spot, "sources", index), (*goes, "sources", index))
            for index, source in enumerate(sources)
        ]
        base = read_model(read, one.get("base"), (*spot, "base"), (*goes, "base"))
        options = _options(read, one.get("options"), (*spot, "options"), (*goes, "options"))
        found.append(Slice(sources=tuple(pieces), base=base, options=options))
    return tuple(found)


def _piece(read: Reading, raw: Any, place: Place, goes: Place) -> Piece:
    if not isinstance(raw, Mapping):
        raise read.document.error(
            place, f"A source is a mapping with the keys model and layers, got {raw!r}."
        )
    read.document.check_keys(place, raw, ("model", "layers", "options"), "A source")
    if "layers" not in raw:
        raise read.document.error(place, "A source of a slice needs layers: [first, one after the last].")
    return Piece(
        model=read_model(read, raw.get("model"), (*place, "model"), (*goes, "model"), needed=True),
        layers=read_layers(read, raw["layers"], (*place, "layers"), (*goes, "layers")),
        options=_options(read, raw.get("options"), (*place, "options"), (*goes, "options")),
    )


def _options(read: Reading, raw: Any, place: Place, goes: Place) -> dict[str, Value]:
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        raise read.document.error(place, f"options is a mapping, got {raw!r}.")
    for key in raw:
        read.line((*goes, key), (*place, key))
    return {str(key): read_value(one, read.document, (*place, key)) for key, one in raw.items()}
