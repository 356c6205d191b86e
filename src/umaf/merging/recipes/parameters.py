"""Options as recipes write them (number, gradient over layers, list of filters) and what they are for a tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from umaf.merging.planning.roles import ROLES
from umaf.merging.recipes.recipe import Filtered, Scalar, Value
from umaf.merging.recipes.yaml_file import Document, Place


def read_value(raw: Any, document: Document, place: Place) -> Value:
    """Read the value of an option.

    Args:
        raw: a number, flag or word; a list of numbers (a gradient); or a list of {filter:, value:}.
        document: where it comes from, for messages.
        place: its place there.

    Raises:
        ConfigError: it is none of these.

    Example:
        >>> read_value([0, 0.5, 1], Document({}), ("options", "t"))
        (0.0, 0.5, 1.0)
        >>> read_value([{"filter": "mlp", "value": 1}, {"value": 0.5}], Document({}), ("options", "t"))
        (Filtered(filter='mlp', value=1), Filtered(filter='*', value=0.5))
    """
    if isinstance(raw, (bool, int, float, str)):
        return raw
    if not isinstance(raw, (list, tuple)) or not raw:
        raise document.error(
            place, f"{place[-1]} must be a number, a list of numbers or a list of filters, got {raw!r}."
        )
    if all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in raw):
        return tuple(float(one) for one in raw)
    if not all(isinstance(one, (dict, Filtered)) for one in raw):
        raise document.error(
            place,
            f"{place[-1]} mixes what does not go together; give numbers only, or only entries {{filter:, value:}}.",
        )
    return tuple(_filtered(one, document, (*place, number)) for number, one in enumerate(raw))


def _filtered(raw: Any, document: Document, place: Place) -> Filtered:
    if isinstance(raw, Filtered):
        return raw
    document.check_keys(place, raw, ("filter", "value"), "A filter")
    if "value" not in raw:
        raise document.error(place, "A filter needs a value; write {filter: part of a name, value: number}.")
    pattern = raw.get("filter")
    if pattern is not None and (not isinstance(pattern, str) or not pattern):
        raise document.error(place, f"A filter must be a part of tensors' names, got {pattern!r}.")
    value = read_value(raw["value"], document, (*place, "value"))
    if isinstance(value, tuple) and value and isinstance(value[0], Filtered):
        raise document.error(
            place, "The value of a filter cannot be a list of filters; write them one after another."
        )
    return Filtered(filter=pattern or "*", value=value)  # type: ignore[arg-type]


def mapped(value: Value, change: Callable[[Scalar], Scalar]) -> Value:
    """Change every number, flag or word of a value.

    Example:
        >>> mapped((Filtered(filter="mlp", value=True),), lambda flag: "mean" if flag else "sum")
        (Filtered(filter='mlp', value='mean'),)
    """
    if not isinstance(value, tuple):
        return change(value)
    return tuple(  # type: ignore[return-value]
        one.model_copy(update={"value": mapped(one.value, change)})
        if isinstance(one, Filtered)
        else change(one)
        for one in value
    )


def leaves(value: Value) -> Iterable[Scalar]:
    """Yield every number, flag or word of a value.

    Example:
        >>> list(leaves((Filtered(value=(0.0, 1.0)), Filtered(value=2))))
        [0.0, 1.0, 2]
    """
    if not isinstance(value, tuple):
        yield value
        return
    for one in value:
        yield from leaves(one.value) if isinstance(one, Filtered) else (one,)


def at_depth(points: Sequence[float], depth: float) -> float:
    """Read a gradient at a depth: its points lie evenly from the first layer (0) to the last (1).

    Example:
        >>> [at_depth((0.0, 0.5, 2.0), layer / 4) for layer in range(5)]
        [0.0, 0.25, 0.5, 1.25, 2.0]
    """
    at = depth * (len(points) - 1)
    left = int(at)
    if left >= len(points) - 1:
        return points[-1]
    share = at - left
    return (1 - share) * points[left] + share * points[left + 1]


def matches(pattern: str, name: str, role: str) -> bool:
    """Tell whether a filter holds for a tensor: "*", a part of its name, or "role:" and its role.

    Example:
        >>> matches("self_attn", "layers.0.self_attn.q_proj.weight", "matrix"), matches("role:head", "x", "matrix")
        (True, False)
    """
    if pattern.startswith("role:"):
        return pattern[5:] == role
    return pattern == "*" or pattern in name


def resolve(levels: Sequence[Value], name: str, role: str, depth: float) -> Scalar | None:
    """Find what an option is for one tensor.

    Args:
        levels: what was said, the most particular first; a list of filters of which none holds says nothing.
        name: of the tensor.
        role: of the tensor.
        depth: of its layer in the slice, from 0 to 1; 0 outside layers.

    Returns:
        The value; None where nothing was said.

    Example:
        >>> resolve([(Filtered(filter="mlp", value=2.0),), (0.0, 1.0)], "layers.1.attn.weight", "matrix", 0.5)
        0.5
    """
    for value in levels:
        if not isinstance(value, tuple):
            return value
        if not isinstance(value[0], Filtered):
            return at_depth(value, depth)  # type: ignore[arg-type]
        for one in value:
            if matches(one.filter, name, role):  # type: ignore[union-attr]
                inner = one.value  # type: ignore[union-attr]
                return at_depth(inner, depth) if isinstance(inner, tuple) else inner
    return None


def is_constant(value: Value) -> bool:
    """Tell whether an option is the same for all tensors.

    Example:
        >>> is_constant(0.5), is_constant((0.0, 1.0))
        (True, False)
    """
    return not isinstance(value, tuple)


def unknown_role(pattern: str) -> str | None:
    """Give the roles there are where a filter names another; None where it is right.

    Example:
        >>> unknown_role("role:heads"), unknown_role("mlp")
        ('matrix, vector, embedding, head, conv, buffer', None)
    """
    wrong = pattern.startswith("role:") and pattern[5:] not in ROLES
    return ", ".join(ROLES) if wrong else None
