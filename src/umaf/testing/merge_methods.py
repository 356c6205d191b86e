"""The promises of merge methods, as checks.

from umaf.testing import check_merge_method, merge_method_checks

check_merge_method(my_method)                                      # anywhere

@pytest.mark.parametrize("check", merge_method_checks(my_method), ids=str)
def test_my_method(check):                                         # under pytest, a test for each promise
    check()
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise, product
from typing import Any

import torch
from torch import Tensor

from umaf.errors import ConfigError
from umaf.merging.contract import Method
from umaf.merging.planning.rules import asked_by
from umaf.merging.registry import method_of
from umaf.testing.promises import BrokenPromise, Check, demand, furthest
from umaf.testing.stacks import (
    KINDS,
    any_options,
    counts_of,
    keywords_of,
    required,
    shapes_of,
    stack_of,
)

TOLERANCE = 2e-4
"""Largest difference of two results that should be equal, as a share of their largest entry."""


@dataclass(frozen=True)
class Given:
    """A method and what it is tried on.

    Attributes:
        method: the method.
        stack: `[model, *shape]`, float32.
        options: of the method.
        seed: of what is drawn for it.
    """

    method: Method
    stack: Tensor
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def merged(self, stack: Tensor | None = None, **extra: Any) -> Tensor:
        """Call the method on the stack, or on another."""
        rows = self.stack if stack is None else stack
        keywords = keywords_of(self.method, tuple(rows.shape[1:]), seed=self.seed)
        return self.method.function(rows, **{**self.options, **keywords, **extra})

    def refused(self) -> bool:
        """Tell whether the method finds these options wrong together, which it may."""
        try:
            self.merged()
        except ConfigError:
            return True
        return False

    def demand(self, truth: bool, promise: str, found: str) -> None:
        """Raise unless something is true of the method here."""
        models, *shape = self.stack.shape
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        where = f"({models} models of shape {shape}{options and ', '}{options})"
        demand(truth, self.method.name, promise, f"{found} {where}")


def _shape(given: Given) -> None:
    result = given.merged()
    wanted = given.stack.shape[1:]
    given.demand(isinstance(result, Tensor), "shape", f"the result is a {type(result).__name__}")
    given.demand(result.shape == wanted, "shape", f"the result has the shape {list(result.shape)}")
    given.demand(result.dtype == torch.float32, "shape", f"the result is {result.dtype} for float32")


def _untouched(given: Given) -> None:
    stack = given.stack.clone()
    keywords = keywords_of(given.method, tuple(stack.shape[1:]), seed=given.seed)
    held = {name: value.clone() for name, value in keywords.items() if isinstance(value, Tensor)}
    given.method.function(stack, **{**given.options, **keywords})
    given.demand(torch.equal(stack, given.stack), "untouched", "the stack is changed")
    for name, value in held.items():
        given.demand(torch.equal(keywords[name], value), "untouched", f"{name} is changed")


def _finite(given: Given) -> None:
    for kind in KINDS:
        stack = stack_of(kind, len(given.stack), tuple(given.stack.shape[1:]), seed=given.seed)
        result = given.merged(stack)
        given.demand(
            bool(torch.isfinite(result).all()), "finite", f"NaN or infinity comes out of {kind} numbers"
        )


def _zero(given: Given) -> None:
    if "zero" not in given.method.needs.breaks:
        result = given.merged(torch.zeros_like(given.stack))
        given.demand(not bool(result.any()), "zero", f"zeros give {result.flatten()[:3].tolist()}")


def _single(given: Given) -> None:
    if "single" not in given.method.needs.breaks and given.method.needs.models[0] == 1:
        one = given.stack[:1]
        gap = furthest(given.merged(one), one[0])
        given.demand(
            gap <= TOLERANCE, "single", f"one model with weight 1 does not give itself, off by {gap:.1e}"
        )


def _same(given: Given) -> None:
    if "same" not in given.method.needs.breaks:
        copies = given.stack[:1].expand_as(given.stack).clone()
        share = {"weight": 1 / len(copies)} if "weight" in given.method.options else {}
        gap = furthest(given.merged(copies, **share), copies[0])
        given.demand(gap <= TOLERANCE, "same", f"copies of one model do not give it, off by {gap:.1e}")


def _order(given: Given) -> None:
    if given.method.needs.order_matters or given.method.needs.random:
        return
    turn = torch.randperm(len(given.stack), generator=torch.Generator().manual_seed(given.seed)).tolist()
    for order in (turn, list(range(len(given.stack)))[::-1]):
        turned = {
            name: [value[place] for place in order] if isinstance(value, list) else value
            for name, value in given.options.items()
        }
        gap = furthest(given.merged(given.stack[order], **turned), given.merged())
        given.demand(gap <= TOLERANCE, "order", f"another order of models changes the result by {gap:.1e}")


def _again(given: Given) -> None:
    first = given.merged()
    torch.rand(3)  # a method that draws from torch's own generator is found out
    given.demand(torch.equal(first, given.merged()), "again", "the same call gives other bits")


def _chunks(given: Given) -> None:
    """Chunks, with what was measured over all of them, give what the whole gives."""
    method, models = given.method, len(given.stack)
    if method.needs_for(given.options).scope != "element" or method.needs.random:
        return
    flat = given.stack.reshape(models, -1)
    ground = keywords_of(method, tuple(given.stack.shape[1:]), seed=given.seed).get("base")
    cuts = [0, flat.shape[1] // 3, flat.shape[1] // 3, (2 * flat.shape[1] + 2) // 3, flat.shape[1]]
    spans = [slice(first, last) for first, last in pairwise(cuts)]
    extra: dict[str, Any] = {}
    if method.measure is not None:
        asked = {name: value for name, value in given.options.items() if name in asked_by(method)}

        def passes() -> Iterator[tuple[str, Tensor]]:
            return iter([("", flat[:, span]) for span in spans])

        extra["measured"] = method.measure(passes, models=models, **asked)
    bases = [{} if ground is None else {"base": ground.reshape(-1)[span]} for span in spans]
    each = [given.merged(flat[:, span], **extra, **base) for span, base in zip(spans, bases, strict=True)]
    whole = given.merged(**({} if ground is None else {"base": ground})).reshape(-1)
    gap = furthest(torch.cat(each), whole)
    given.demand(gap <= TOLERANCE, "chunks", f"pieces of a tensor give another result, off by {gap:.1e}")


def _rotated(given: Given) -> None:
    if not given.method.needs_for(given.options).equivariant or given.stack.ndim != 3:
        return
    draw = torch.Generator().manual_seed(given.seed)
    rows, columns = given.stack.shape[1:]
    left = torch.linalg.qr(torch.randn(rows, rows, generator=draw)).Q
    right = torch.linalg.qr(torch.randn(columns, columns, generator=draw)).Q
    gap = furthest(given.merged(left @ given.stack @ right), left @ given.merged() @ right)
    given.demand(gap <= 10 * TOLERANCE, "rotated", f"rotated deltas give another result, off by {gap:.1e}")


def _batched(given: Given) -> None:
    if not (given.method.needs.batched and given.stack.ndim == 3) or given.method.needs.random:
        return
    other = stack_of("plain", len(given.stack), tuple(given.stack.shape[1:]), seed=given.seed + 1)
    both = given.merged(torch.stack([given.stack, other], dim=1))
    gap = max(furthest(both[0], given.merged()), furthest(both[1], given.merged(other)))
    given.demand(
        gap <= TOLERANCE, "batched", f"a batch gives another result than its matrices, off by {gap:.1e}"
    )


MERGE_PROMISES: Mapping[str, Callable[[Given], None]] = {
    "shape": _shape,
    "untouched": _untouched,
    "finite": _finite,
    "zero": _zero,
    "single": _single,
    "same": _same,
    "order": _order,
    "again": _again,
    "chunks": _chunks,
    "rotated": _rotated,
    "batched": _batched,
}
"""Every promise by name; those in `Needs.breaks` and those that a method's `Needs` rule out are not asked for."""

# These hold whatever the options are; the others for what the defaults mean.
_WITH_ANY_OPTIONS = {"shape", "untouched", "finite", "zero", "order", "again", "chunks", "rotated", "batched"}


def check_promise(
    method: Method | Callable[..., Tensor],
    promise: str,
    *,
    shape: tuple[int, ...],
    models: int,
    seed: int = 0,
    drawn: bool = False,
) -> None:
    """Check one promise of a merge method in one place; made for hypothesis to call with what it draws.

    Args:
        method: decorated with `merge_method`.
        promise: a name of `MERGE_PROMISES`.
        shape: of a tensor; `(out, in)` for methods that want matrices.
        models: how many.
        seed: of the numbers, and of options.
        drawn: draw options; only where the promise must hold with any. Otherwise they are the defaults.

    Raises:
        BrokenPromise: it is broken; the message says on what.

    Example:
        >>> from umaf.merging.methods.linear import linear
        >>> check_promise(linear, "order", shape=(3, 5), models=4)
    """
    described = _described(method)
    if drawn and promise not in _WITH_ANY_OPTIONS:
        return
    options = any_options(described, models, seed=seed) if drawn else required(described, seed=seed)
    given = Given(described, stack_of("plain", models, shape, seed=seed), options, seed)
    if not (drawn and given.refused()):
        MERGE_PROMISES[promise](given)


def check_merge_method(method: Method | Callable[..., Tensor], *, seeds: int = 2) -> None:
    """Check all promises of a merge method; silent if it keeps them.

    Args:
        method: decorated with `merge_method`; it need not be registered.
        seeds: how many draws of numbers and options to try.

    Raises:
        BrokenPromise: the first that is broken; the message says on what.

    Example:
        >>> from umaf.merging.methods.linear import linear
        >>> check_merge_method(linear)
    """
    for check in merge_method_checks(method, seeds=seeds):
        check()


def merge_method_checks(method: Method | Callable[..., Tensor] | str, *, seeds: int = 2) -> list[Check]:
    """List the checks of a merge method, one for each promise and draw: parameters for a test of yours.

    Args:
        method: decorated with `merge_method`, or a registered name.
        seeds: how many draws of numbers and options to try.

    Example:
        >>> str(merge_method_checks("linear")[0])
        'linear-shape'
    """
    described = method_of(method) if isinstance(method, str) else _described(method)

    def run(promise: str) -> None:
        cases = product(shapes_of(described), counts_of(described), range(seeds), (False, True))
        for shape, models, seed, drawn in cases:
            check_promise(described, promise, shape=shape, models=models, seed=seed, drawn=drawn)

    return [Check(described.name, promise, partial(run, promise)) for promise in MERGE_PROMISES]


def _described(method: Method | Callable[..., Tensor]) -> Method:
    if isinstance(method, Method):
        return method
    found = getattr(method, "method", None)
    if not isinstance(found, Method):
        raise BrokenPromise(f"{method!r} lacks the decorator merge_method; add it.")
    return found
