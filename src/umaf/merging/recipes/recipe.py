"""A recipe: which models are merged, by which method, with which options. The same object from YAML and from Python.

    Recipe(method="ties", base="org/base", models=["org/maths", "org/code"], options={"density": 0.2})

An option is a number (or flag, or word), a list of numbers (a gradient, interpolated over the layers), or a list of
`{"filter": part of a tensor's name, "value": …}`, of which the first that matches holds. What a slice's source says
goes before what the slice says, that before what a model says, and that before what the recipe says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from umaf.errors import ConfigError, did_you_mean
from umaf.merging.recipes.reference import Ref, parse_ref
from umaf.merging.recipes.yaml_file import Place, located


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True)


Scalar: TypeAlias = bool | int | float | str
Model: TypeAlias = Annotated[Ref, BeforeValidator(parse_ref)]
Dtype: TypeAlias = Literal["float32", "float16", "bfloat16", "float64"]

DTYPES: Mapping[str, Dtype] = {
    "float32": "float32",
    "fp32": "float32",
    "f32": "float32",
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
    "float16": "float16",
    "fp16": "float16",
    "f16": "float16",
    "float64": "float64",
    "fp64": "float64",
    "f64": "float64",
}
"""Every name of a dtype that recipes may use."""


def _long(name: Any) -> Any:
    return DTYPES.get(str(name).removeprefix("torch.").lower(), name) if name is not None else None


class Filtered(_Frozen):
    """A value for the tensors whose name holds `filter`; "*" is every tensor, "role:…" those of a role."""

    filter: str = "*"
    value: Scalar | tuple[float, ...]


Value: TypeAlias = Scalar | tuple[float, ...] | tuple[Filtered, ...]
Options: TypeAlias = Mapping[str, Value]


def _sentence(problem: ValidationError, known: Iterable[str]) -> str:
    """Say the first thing that is wrong in one sentence."""
    first = problem.errors()[0]
    place = ".".join(str(one) for one in first["loc"])
    cause = first.get("ctx", {}).get("error")
    if first["type"] == "extra_forbidden":
        return f"A recipe has no {place!r}.{did_you_mean(str(first['loc'][-1]), known)}"
    if first["type"] == "missing":
        return f"A recipe needs {place}; give it."
    text = str(cause) if cause is not None else f"{first['msg']}, got {first['input']!r}"
    return f"{place}: {text.rstrip('.')}." if place else f"{text[0].upper()}{text[1:].rstrip('.')}."


def _listed(value: Any) -> Any:
    """A model alone stands for a model without options."""
    if isinstance(value, Mapping) and set(value) & {"options", "layers"}:
        return value
    return value if isinstance(value, BaseModel) and not isinstance(value, Ref) else {"model": value}


class Input(_Frozen):
    """One model of a merge, with the options that are its own.

    `layers`, where it is given, must be all its layers: a part of them goes into `slices`.
    """

    model: Model
    options: Options = Field(default_factory=dict)
    layers: tuple[int, int] | None = None


class Piece(_Frozen):
    """A run of layers of one model: from the first number up to, without, the second."""

    model: Model
    layers: tuple[int, int]
    options: Options = Field(default_factory=dict)


class Slice(_Frozen):
    """Layers of the result, merged from as many layers of each source."""

    sources: tuple[Piece, ...]
    base: Model | None = None
    options: Options = Field(default_factory=dict)


class Token(_Frozen):
    """Where the row of one token comes from.

    Attributes:
        source: the model; None for the usual rule.
        token: another token of that model whose row is taken.
        token_id: the same by its number.
        zero: the row is zeros.
        force: the row of every model is this one, also of those that have the token.
    """

    source: Model | None = None
    token: str | None = None
    token_id: int | None = None
    zero: bool = False
    force: bool = False


class Tokenizer(_Frozen):
    """The vocabulary of the result.

    Attributes:
        source: "union" of all models, "base" (the first model where there is no base), or one model.
        tokens: exceptions, by token.
        pad_to_multiple_of: rows are added until their number is a multiple of this.
    """

    source: Literal["union", "base"] | Model = "union"
    tokens: Mapping[str, Token] = Field(default_factory=dict)
    pad_to_multiple_of: int | None = Field(default=None, ge=1)


class Recipe(_Frozen):
    """One merge.

    Attributes:
        method: a name of `umaf methods`.
        models: what is merged, in order; empty where there are slices.
        base: what deltas are taken from; for a method without deltas, whose config and tokenizer the result has.
        options: of the method, for all models and tensors. `scale` multiplies the merged delta.
        slices: layers of the result, in order.
        dtype: of the stored result; None keeps what the donor stores.
        tokenizer: how vocabularies are brought together; None: they are the same.
        chat_template: "auto", a name, or a template; None keeps the donor's.
        seed: of methods that draw.
        name: of the stage, where a recipe has several.
        allow: keys of config.json in which the models may differ though the result may then be wrong; the donor's
            value holds. "*" is every key.
        required: options that have no default in the form the recipe is written in.
        notes: what the reader of a recipe has to say about it.
        loras: its models are LoRAs, though some of them are stages that are not made yet.
        lines: line of each key in the file, for messages: ("models", 1, "options", "density") to 7.
        file: where it was read, for messages.
    """

    method: str
    models: Annotated[tuple[Annotated[Input, BeforeValidator(_listed)], ...], Field()] = ()
    base: Model | None = None
    options: Options = Field(default_factory=dict)
    slices: tuple[Slice, ...] = ()
    dtype: Annotated[Dtype | None, BeforeValidator(_long)] = None
    tokenizer: Tokenizer | None = None
    chat_template: str | None = None
    seed: int = 0
    name: str | None = None
    allow: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    loras: bool = Field(default=False, exclude=True, repr=False)
    lines: Mapping[tuple[str | int, ...], int] = Field(default_factory=dict, exclude=True, repr=False)
    file: str = Field(default="the recipe", exclude=True, repr=False)
    _stages: Mapping[str, Recipe] = PrivateAttr(default_factory=dict)

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as problem:
            raise ConfigError(_sentence(problem, type(self).model_fields)) from problem

    @model_validator(mode="after")
    def _models_or_slices(self) -> Recipe:
        if bool(self.models) == bool(self.slices):
            raise ValueError("a recipe has either models or slices, and at least one of them")
        return self

    def error(self, place: Place, message: str) -> ConfigError:
        """Make the error for a place of the recipe, with file and line where they are known."""
        return ConfigError(located(self.lines, self.file, place) + message)

    @property
    def of_loras(self) -> bool:
        """Every model is a LoRA folder by itself, or becomes one, so that the result is one too."""
        return self.loras or (bool(self.models) and all(one.model.is_lora for one in self.models))

    @property
    def stages(self) -> Mapping[str, Recipe]:
        """Folders of merges that were made for this one, and the recipe of each as it was written."""
        return self._stages

    def beside(self, stages: Mapping[str, Recipe]) -> Recipe:
        """Give the recipe with the merges that were made for it, so that it can be written down whole.

        Args:
            stages: folder to recipe.

        Example:
            >>> inner = Recipe(method="linear", models=["a", "b"], name="first")
            >>> list(Recipe(method="linear", models=["first", "c"]).beside({"out/first": inner}).stages)
            ['out/first']
        """
        found = self.model_copy()
        found._stages = dict(stages)
        return found

    def refs(self) -> tuple[Ref, ...]:
        """List every model that is named, base first, each once."""
        named = [self.base] if self.base else []
        named += [one.model for one in self.models]
        for piece in self.slices:
            named += [piece.base] if piece.base else []
            named += [source.model for source in piece.sources]
        return tuple(dict.fromkeys(named))

    def renamed(self, folders: Mapping[str, str]) -> Recipe:
        """Give the recipe with stages replaced by the folders that hold them.

        Args:
            folders: name of a stage to its folder.

        Example:
            >>> recipe = Recipe(method="linear", models=["first", "org/b"], name="last")
            >>> list(map(str, recipe.renamed({"first": "out/first"}).refs()))
            ['out/first', 'org/b']
        """

        def there(ref: Ref | None) -> Ref | None:
            if ref is None:
                return None
            lora = tuple(one.model_copy(update={"path": folders.get(one.path, one.path)}) for one in ref.lora)
            return ref.model_copy(update={"path": folders.get(ref.path, ref.path), "lora": lora})

        def moved(source: Any) -> Any:
            return source.model_copy(update={"model": there(source.model)})

        slices = tuple(
            one.model_copy(update={"base": there(one.base), "sources": tuple(map(moved, one.sources))})
            for one in self.slices
        )
        tokenizer = self.tokenizer
        if tokenizer is not None:
            source = there(tokenizer.source) if isinstance(tokenizer.source, Ref) else tokenizer.source
            tokens = {
                token: one.model_copy(update={"source": there(one.source)})
                for token, one in tokenizer.tokens.items()
            }
            tokenizer = tokenizer.model_copy(update={"source": source, "tokens": tokens})
        changed = {"models": tuple(map(moved, self.models)), "base": there(self.base)}
        return self.model_copy(update={**changed, "slices": slices, "tokenizer": tokenizer})
