"""What a merge method is: a pure function on tensors, and a frozen description of what it needs.

    @merge_method(Needs(base="required", scope="element"), source="...")
    def task_arithmetic(deltas: Float[Tensor, "model *shape"], *, weight: PerModel = 1.0) -> Float[Tensor, "*shape"]:
        ...

The decorator attaches a :class:`Method` and gives the same function back: it stays callable, and testable, with
nothing of the engine around it. Whatever runs a merge (the streaming engine, a state dict in memory, a Ray cluster)
reads the description before it opens a file, and calls the function on float32 stacks.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from umaf.errors import ConfigError

PerModel: TypeAlias = float | Sequence[float] | Tensor
"""A number for all models, or one for each, in the order of the stack."""

Passes: TypeAlias = Callable[[], Iterator[tuple[str, Tensor]]]
"""Each call is one pass over the data: (tensor's name, a float32 stack `[model, chunk]`), chunk by chunk."""

_GIVEN = {"generator", "measured", "shape", "totals", "base", "dtype"}
"""Keywords that whoever runs a method gives; they are no options of recipes."""

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Span:
    """The values an option may take; written inside `Annotated`.

    Attributes:
        low: smallest value.
        high: largest value; None when there is no limit.
        open_low: `low` itself is not allowed.
        open_high: `high` itself is not allowed.
    """

    low: float | None = None
    high: float | None = None
    open_low: bool = False
    open_high: bool = False

    def holds(self, value: float) -> bool:
        """Tell whether a value lies inside; NaN never does.

        Example:
            >>> Span(0, 1, open_low=True).holds(0), Span(0, 1).holds(0)
            (False, True)
        """
        above = self.low is None or (value > self.low if self.open_low else value >= self.low)
        below = self.high is None or (value < self.high if self.open_high else value <= self.high)
        return value == value and above and below

    def __str__(self) -> str:
        """Give the interval as it is written: "(0, 1]"."""
        left = "(-inf" if self.low is None else f"{'(' if self.open_low else '['}{self.low:g}"
        right = "inf)" if self.high is None else f"{self.high:g}{')' if self.open_high else ']'}"
        return f"{left}, {right}"


@dataclass(frozen=True)
class Needs:
    """What a method asks of whoever runs it.

    Attributes:
        base: "required": rows are deltas from the base, and so is the result. "none": rows are the weights themselves.
            "optional": deltas where the recipe names a base, weights where it does not.
        scope: "element": an entry of the result depends on the same entries of the rows (and on what `measure`
            gave), so the engine may hand over flat chunks `[model, chunk]` of any length. "tensor": the whole tensor
            is needed.
        measure: over what `measure` runs before the method: "tensor", "model" (all tensors, one pass after another),
            or the name of an option that is a choice between these two (and perhaps others): then the recipe says, and
            :meth:`Method.measured_over` reads it.
        models: fewest and most models; None when there is no limit.
        matrices: only matrices of linear layers inside blocks make sense (`[model, out, in]`, whatever the file
            stores; `[model, expert, out, in]` never: experts are handed over one matrix at a time or, if `batched`,
            as `[model, batch, out, in]`). Every other tensor gets the rule `otherwise`.
        otherwise: "mean", "sum" or "base": the rule for tensors that the method is not for; words only where the method
            has a rule of its own for them (:attr:`Method.others`).
        whole: values of options with which a method wants whole tensors whatever its scope, and is not equivariant:
            angles of each row in place of one for the tensor, or a descent that goes entry by entry.
        memory: float32 copies of the stack, about, that the function makes inside where it sees whole tensors (singular
            vectors, products): the planner counts them.
        ground: the function also takes `base`, the base's weights in float32 `[*shape]`, which it leaves as they are;
            only with base "required". It is no option of recipes.
        sums: once something is measured, the function takes the sum of the rows as well, as a stack of one row; only
            for scope "element" with measure "tensor". Models are then read once where the sum of a tensor fits.
        batched: the function takes leading batch axes between model and out.
        order_matters: another order of models may change the result.
        random: the method draws; it gets `generator`, a NumPy generator seeded by (seed, method, tensor, chunk).
        equivariant: rotating rows and columns of all deltas rotates the result, so that LoRAs can be merged exactly
            inside the space their factors span. A function that counts directions takes `shape`, the (out, in) of the
            tensors that such cores stand for; it is no option of recipes.
        rows: values of options that a recipe does not name, for tensors whose vectors are rows and not columns:
            tables of embeddings (a row is a token), and matrices that their file stores as `[in, out]`.
        breaks: promises of every method that this one does not keep, each with its reason. Promises are "zero" (deltas
            of 0 give 0), "single" (one model with weight 1 gives its delta), "same" (copies of one expert give that
            expert, weights being shares).
    """

    base: Literal["required", "none", "optional"] = "required"
    scope: Literal["element", "tensor"] = "tensor"
    measure: str = "tensor"
    models: tuple[int, int | None] = (1, None)
    matrices: bool = False
    otherwise: Literal["mean", "sum", "base"] = "mean"
    whole: Mapping[str, Any] = field(default_factory=dict)
    memory: float = 1.0
    ground: bool = False
    sums: bool = False
    batched: bool = False
    order_matters: bool = False
    random: bool = False
    equivariant: bool = False
    rows: Mapping[str, Any] = field(default_factory=dict)
    breaks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Option:
    """One keyword of a method.

    Attributes:
        name: as in recipes.
        kind: "number", "integer", "flag" or "choice".
        default: value when the recipe says nothing; None when it must be given.
        per_model: each model may have its own.
        span: values allowed, for numbers.
        choices: values allowed, for a choice.
        required: there is no default.
    """

    name: str
    kind: Literal["number", "integer", "flag", "choice"]
    default: Any
    per_model: bool = False
    span: Span | None = None
    choices: tuple[str, ...] = ()
    required: bool = False

    def check(self, method: str, value: Any) -> Any:
        """Give the value as the method's type, or say what is wrong with it.

        Raises:
            ConfigError: the value has another type, or lies outside the span.

        Example:
            >>> Option("density", "number", 0.2, span=Span(0, 1, open_low=True)).check("ties", 1)
            1.0
        """
        if self.kind == "flag":
            if isinstance(value, bool):
                return value
            raise ConfigError(f"{method}: {self.name} must be true or false, got {value!r}.")
        if self.kind == "choice":
            if value in self.choices:
                return value
            raise ConfigError(
                f"{method}: {self.name} must be one of {', '.join(self.choices)}, got {value!r}."
            )
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ConfigError(f"{method}: {self.name} must be a number, got {value!r}.")
        if self.kind == "integer" and value != int(value):
            raise ConfigError(f"{method}: {self.name} must be a whole number, got {value!r}.")
        number = int(value) if self.kind == "integer" else float(value)
        if self.span is not None and not self.span.holds(number):
            raise ConfigError(f"{method}: {self.name} must lie in {self.span}, got {value:g}.")
        if number in (float("inf"), float("-inf")) or number != number:
            raise ConfigError(f"{method}: {self.name} must be finite, got {value!r}.")
        return number


@dataclass(frozen=True)
class Method:
    """A merge method as its registry knows it.

    Attributes:
        name: as in recipes.
        function: the pure function.
        needs: what it asks for.
        options: its keywords, without those that whoever runs it gives (`generator`, `measured`, `shape`, `base`).
        source: the paper (and equation) whose rule this is.
        measure: gives what the function takes as `measured`, from passes over the data; None when it takes none.
        others: the rule for tensors that the method is not for, where these share what is measured: entry by entry,
            with the function's keywords. None when `needs.otherwise` is the rule.
    """

    name: str
    function: Callable[..., Tensor]
    needs: Needs
    options: Mapping[str, Option]
    source: str
    measure: Callable[..., Mapping[str, Tensor]] | None = None
    others: Callable[..., Tensor] | None = None

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").split("\n")[0]

    def measured_over(self, options: Mapping[str, Any]) -> Literal["tensor", "model"]:
        """Tell over what `measure` runs, given the options of a recipe.

        Args:
            options: those that are set; the others have their defaults.
        """
        scope = self.needs.measure
        if scope in self.options:
            scope = options.get(scope, self.options[scope].default)
        return "model" if scope == "model" else "tensor"

    def needs_for(self, options: Mapping[str, Any]) -> Needs:
        """Give what the method asks for with the options of a recipe: `whole` is looked up.

        Args:
            options: those that are set; the others have their defaults.
        """
        whole = any(
            options.get(name, self.options[name].default) == value for name, value in self.needs.whole.items()
        )
        return replace(self.needs, scope="tensor", equivariant=False) if whole else self.needs


def merge_method(
    needs: Needs,
    *,
    source: str,
    measure: Callable[..., Mapping[str, Tensor]] | None = None,
    others: Callable[..., Tensor] | None = None,
) -> Callable[[F], F]:
    """Describe a function as a merge method; the function itself is given back, with the attribute `method`.

    Args:
        needs: what it asks of whoever runs it.
        source: the paper (and equation) whose rule it is.
        measure: `measure(passes, **the options it names) -> {"name": tensor}`; the method gets the result as
            `measured`. An option called `models` is the number of rows.
        others: see :class:`Method`.

    Raises:
        TypeError: an option has no type, or one that recipes cannot give; `needs.measure` names none.
    """

    def describe(function: F) -> F:
        name = function.__name__
        options = options_of(function)
        over = {"tensor", "model"}
        if needs.measure not in over and not over <= set(options[needs.measure].choices):
            raise TypeError(
                f"{name}: measure={needs.measure!r} must be an option with the choices tensor and model."
            )
        function.method = Method(name, function, needs, options, source, measure, others)  # type: ignore[attr-defined]
        return function

    return describe


def as_column(value: PerModel, stack: Tensor) -> Tensor:
    """Give a number per model as a tensor that broadcasts along a stack.

    Args:
        value: one number, or one for each model.
        stack: `[model, *shape]`.

    Returns:
        `[model, 1, …]` in the stack's dtype.

    Raises:
        ConfigError: there are not as many numbers as models.

    Example:
        >>> as_column([1, 2], torch.zeros(2, 3)).shape
        torch.Size([2, 1])
    """
    models = stack.shape[0]
    column = torch.as_tensor(value, dtype=stack.dtype, device=stack.device)
    column = column.expand(models) if column.ndim == 0 else column
    if column.shape != (models,):
        raise ConfigError(
            f"There are {models} models and {column.numel()} numbers for them; give one number each."
        )
    return column.reshape(models, *[1] * (stack.ndim - 1))


def once(stack: Tensor) -> Passes:
    """Give the passes over one tensor in memory, for a method that is called without an engine.

    Example:
        >>> [(name, chunk.shape) for name, chunk in once(torch.zeros(2, 3, 4))()]
        [('', torch.Size([2, 12]))]
    """
    return _Once(stack)


@dataclass(frozen=True)
class _Once:
    """The passes over one stack: flat, or as it is where a method wants whole matrices."""

    stack: Tensor

    def __call__(self) -> Iterator[tuple[str, Tensor]]:
        return iter([("", self.stack.reshape(self.stack.shape[0], -1))])

    def matrices(self) -> Iterator[tuple[str, Tensor]]:
        return iter([("", self.stack)])

    def others(self) -> Iterator[tuple[str, Tensor]]:
        return iter([])


def options_of(function: Callable[..., Any]) -> dict[str, Option]:
    """Read the options of a function from its keywords and their types.

    Raises:
        TypeError: an option has no type, or one that recipes cannot give.
    """
    hints = get_type_hints(function, include_extras=True)
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not parameter.KEYWORD_ONLY or name in _GIVEN:
            continue
        found[name] = _option(function.__name__, parameter, hints.get(name))
    return found


def _option(method: str, parameter: inspect.Parameter, hint: Any) -> Option:
    span = None
    if get_origin(hint) is Annotated:
        hint, *extra = get_args(hint)
        span = next((one for one in extra if isinstance(one, Span)), None)
    required = parameter.default is parameter.empty
    default = None if required else parameter.default
    if hint == PerModel:
        return Option(parameter.name, "number", default, True, span, required=required)
    if get_origin(hint) is Literal:
        return Option(parameter.name, "choice", default, choices=get_args(hint), required=required)
    kinds = {float: "number", int: "integer", bool: "flag"}
    if hint not in kinds:
        raise TypeError(
            f"{method}: the option {parameter.name} has the type {hint}, which no recipe can give."
        )
    return Option(parameter.name, kinds[hint], default, span=span, required=required)  # type: ignore[arg-type]
