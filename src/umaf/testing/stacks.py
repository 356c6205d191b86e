"""Stacks of models and options of methods, drawn for checks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from umaf.merging.contract import Method, Option, Span
from umaf.seeds import derive, generator

FLAT_SHAPES = ((7,), (1,), (0,), (3, 5), (4, 1), (2, 3, 5), (2, 3, 2, 2))
"""Shapes for methods that take any tensor."""

MATRIX_SHAPES = ((6, 8), (1, 1), (1, 7), (7, 1), (9, 4))
"""Shapes `[out, in]` for methods that want matrices."""

KINDS = ("plain", "bfloat16", "sparse", "alike", "opposite", "huge", "small")
"""What the entries of a stack are like."""

_MOST = 10


def stack_of(kind: str, models: int, shape: tuple[int, ...], *, seed: int = 0) -> Tensor:
    """Draw a stack.

    Args:
        kind: one of `KINDS`: plain numbers of size 1; such as bfloat16 holds; mostly zeros, one model all zeros; copies
            of one model; pairs that cancel; numbers of 1e4; of 1e-6.
        models: rows.
        shape: of each.
        seed: of the numbers.

    Returns:
        `[model, *shape]`, float32.

    Example:
        >>> stack_of("alike", 2, (3,)).shape
        torch.Size([2, 3])
    """
    draw = generator(seed, "stack", kind)
    stack = torch.randn(models, *shape, generator=draw)
    if kind == "bfloat16":
        return stack.bfloat16().float()
    if kind == "sparse":
        stack *= torch.rand(models, *shape, generator=draw) < 0.2
        stack[-1] = 0
    elif kind == "alike":
        stack[:] = stack[0].clone()
    elif kind == "opposite":
        stack[1::2] = -stack[0:-1:2] if models % 2 == 0 else -stack[0 : models - 1 : 2]
    return stack * {"huge": 1e4, "small": 1e-6}.get(kind, 1.0)


def shapes_of(method: Method) -> tuple[tuple[int, ...], ...]:
    """Give the shapes a method must take.

    Example:
        >>> from umaf.merging.registry import method_of
        >>> shapes_of(method_of("tsv_m"))[0]
        (6, 8)
    """
    return MATRIX_SHAPES if method.needs.matrices else FLAT_SHAPES


def counts_of(method: Method) -> tuple[int, ...]:
    """Give numbers of models a method must take.

    Example:
        >>> from umaf.merging.registry import method_of
        >>> counts_of(method_of("slerp")), counts_of(method_of("linear"))
        ((2,), (1, 2, 3))
    """
    fewest, most = method.needs.models
    return tuple(count for count in range(fewest, fewest + 3) if most is None or count <= most)


def keywords_of(method: Method, shape: tuple[int, ...], *, seed: int = 0) -> dict[str, Any]:
    """Give what whoever runs a method hands over besides options: generator and base, where it takes them.

    Example:
        >>> from umaf.merging.registry import method_of
        >>> keywords_of(method_of("linear"), (3,))
        {}
    """
    keywords: dict[str, Any] = {}
    if method.needs.random:
        keywords["generator"] = np.random.Generator(np.random.SFC64(derive(seed, method.name)))
    if method.needs.ground:
        keywords["base"] = torch.randn(shape, generator=generator(seed, "base"))
    return keywords


def required(method: Method, *, seed: int = 0) -> dict[str, Any]:
    """Give values for the options of a method that have no default.

    Example:
        >>> from umaf.merging.registry import method_of
        >>> required(method_of("linear"))
        {}
    """
    drawn = any_options(method, 1, seed=seed)
    return {
        name: drawn[name][0] if option.per_model else drawn[name]
        for name, option in method.options.items()
        if option.required
    }


def any_options(method: Method, models: int, *, seed: int) -> dict[str, Any]:
    """Draw values for all options, each inside its span.

    Args:
        method: whose options.
        models: how many numbers an option gets that each model has for itself.
        seed: of the draw.

    Example:
        >>> from umaf.merging.registry import method_of
        >>> sorted(any_options(method_of("linear"), 3, seed=0))
        ['normalize', 'weight']
    """
    draw = np.random.default_rng(derive(seed, method.name, "options"))
    found: dict[str, Any] = {}
    for name, option in method.options.items():
        found[name] = (
            [_value(option, draw) for _ in range(models)] if option.per_model else _value(option, draw)
        )
    return found


def _value(option: Option, draw: np.random.Generator) -> Any:
    if option.kind == "choice":
        return option.choices[int(draw.integers(len(option.choices)))]
    if option.kind == "flag":
        return bool(draw.integers(2))
    span = option.span or Span()
    low, high = span.low or 0.0, span.high
    if high is None:  # no limit: up to twice the default, which is of the right size
        high = max(low, 2 * abs(option.default)) if option.default else low + 1
    if option.kind == "integer":
        # Whole numbers are mostly counts of steps or of ranks: small ones are as good, and quick.
        return int(draw.integers(int(low), int(min(high, low + _MOST)) + 1))
    # Away from the ends of the span, which may be open.
    return float(low + (high - low) * draw.uniform(0.05, 0.95))
