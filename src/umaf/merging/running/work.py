"""The merge of one tensor: what every engine runs, and what a merge in memory runs.

All arithmetic is float32; the result is rounded once, into the target. Entry-wise methods see chunks of `CHUNK`
entries, so that memory does not grow with the tensor; others see whole tensors, or one matrix (or a few experts) at a
time. Nothing depends on who runs it, or on how much of the tensor somebody else merges: chunk k of tensor t gives the
same bits everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from umaf.errors import ConfigError, NumericalError
from umaf.merging.parts import total
from umaf.merging.planning.jobs import Job, Parts
from umaf.merging.planning.rules import Rule, asked_by, rule_for
from umaf.merging.running.copied import copy
from umaf.merging.running.feeds import Feed, blame
from umaf.merging.running.room import CHUNK, KEPT, Room
from umaf.merging.running.sink import Memory, Target
from umaf.merging.running.views import join, pieces
from umaf.seeds import derive

BATCH = 1 << 22
"""Entries of each model that are handed to a batched method at a time, in whole experts."""

SAMPLE = 1 << 17
"""Entries of each model that a thin pass reads, about; it only says where to look, and decides no bit."""

PIECE = 4096
"""Entries of each model that a thin pass reads at a time, at least: looking at fewer costs as much."""

_PLAIN = Parts()
_NARROW = {torch.float16, torch.float8_e4m3fn, torch.float8_e5m2}


@dataclass(frozen=True)
class Work:
    """One tensor of the result, with its inputs at hand.

    Attributes:
        name: of the tensor.
        shape: of the result.
        method: a name of the registry, or a rule ("copy", "mean", "sum", "base").
        rows: of the merged models, in order.
        base: what deltas are taken from; None for methods on weights.
        options: of the method; a tuple where each model has its own.
        scale: the merged delta is multiplied by it.
        parts: how a method that wants matrices sees the tensor.
        seed: of the run.
    """

    name: str
    shape: tuple[int, ...]
    method: str
    rows: tuple[Feed, ...]
    base: Feed | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    scale: float = 1.0
    parts: Parts = _PLAIN
    seed: int = 0

    @property
    def numel(self) -> int:
        """Entries of the result."""
        return math.prod(self.shape)

    @property
    def feeds(self) -> tuple[Feed, ...]:
        """All inputs."""
        return self.rows if self.base is None else (*self.rows, self.base)

    @cached_property
    def rule(self) -> Rule:
        """What it is merged by, found out once; see `rule_of`."""
        return rule_of(self)

    @property
    def ground(self) -> Feed | None:
        """What deltas are taken from; None where weights are merged."""
        return None if self.rule.needs.base == "none" else self.base


def rule_of(work: Work | Job) -> Rule:
    """Find out what a tensor is merged by.

    Raises:
        ConfigError: the method needs a base, and there is none.
        RegistryError: no such method.

    Example:
        >>> from umaf.merging.running.feeds import Flat
        >>> rule_of(Work("w", (2,), "mean", (Flat(torch.ones(2)),))).name
        'mean'
    """
    based = work.base is not None
    return rule_for(work.method, where=work.name, parts=work.parts, based=based, options=work.options)


def divisible(work: Work | Job) -> bool:
    """Tell whether chunks of a tensor can be merged apart from each other, by several workers.

    Example:
        >>> from umaf.merging.running.feeds import Flat
        >>> divisible(Work("w", (2,), "mean", (Flat(torch.ones(2)),)))
        True
    """
    rule = rule_of(work)
    return rule.function is None or (
        rule.needs.scope == "element" and rule.measures(work.options) != "tensor"
    )


def measured(works: Sequence[Work], room: Room, *, sums: Tensor | None = None) -> Mapping[str, Tensor] | None:
    """Run what a method measures before it merges, over tensors that share their options.

    Args:
        works: one tensor, or all tensors that the method is for.
        room: memory.
        sums: `[numel]`, filled with the sum of the rows by the way; only for one tensor.

    Returns:
        What the method takes as `measured`; None where it takes nothing.
    """
    method = rule_of(works[0]).method
    if method is None or method.measure is None:
        return None
    asked = asked_by(method)
    first = works[0]
    options = {name: value for name, value in first.options.items() if name in asked}
    return method.measure(_Reading(works, room, sums), models=len(first.rows), **options)


class _Reading:
    """The passes over some tensors: whole ones, and one over a thin sample, a piece of every so many chunks."""

    def __init__(self, works: Sequence[Work], room: Room, sums: Tensor | None) -> None:
        self._works, self._room, self._sums = works, room, sums
        self.entries: int = getattr(works, "entries", None) or sum(work.numel for work in works)

    def __call__(self) -> Iterator[tuple[str, Tensor]]:
        for work in self._works:
            yield from self._chunks(work)

    def thin(self) -> Iterator[tuple[str, Tensor]]:
        piece = min(CHUNK, max(PIECE, SAMPLE * CHUNK // max(self.entries, 1)))
        every = max(1, self.entries * piece // CHUNK // SAMPLE)
        number = 0
        for work in self._works:
            for start in range(0, work.numel, CHUNK):
                if number % every == 0:
                    yield work.name, _load(work, start, min(start + piece, work.numel), room=self._room)[0]
                number += 1

    def matrices(self) -> Iterator[tuple[str, Tensor]]:
        """Go over whole matrices `[model, out, in]` as the method sees them, for one that measures in other axes."""
        for work in self._works:
            rule = rule_of(work)
            if not rule.needs.matrices:
                continue
            for start, shape, view in _ranges(work, rule):
                stack, _ = _stacked(work, rule, start, start + math.prod(shape), self._room)
                for piece in pieces(stack.view(-1, *shape), view):
                    yield work.name, piece

    def others(self) -> Iterator[tuple[str, Tensor]]:
        """Go over chunks of the tensors that are no matrices, for a method with a rule of its own for them."""
        for work in self._works:
            if not rule_of(work).needs.matrices:
                yield from self._chunks(work)

    def _chunks(self, work: Work) -> Iterator[tuple[str, Tensor]]:
        for start in range(0, work.numel, CHUNK):
            stop = min(start + CHUNK, work.numel)
            stack = _load(work, start, stop, room=self._room)[0]
            if self._sums is not None:
                total(stack, out=self._sums[start:stop])
            yield work.name, stack


def merge_into(
    work: Work,
    target: Tensor | Target,
    *,
    room: Room | None = None,
    measure: Mapping[str, Tensor] | None = None,
    first: int = 0,
    last: int | None = None,
) -> None:
    """Merge one tensor into memory that is there.

    Args:
        work: what is merged.
        target: `[numel]`, in the dtype of the result, or the place of one.
        room: memory of this worker.
        measure: what a pass over the whole model gave; None where the method needs none.
        first: where to begin, a multiple of `CHUNK`; only for what is `divisible`.
        last: where to stop; None for the end.

    Raises:
        NumericalError: an input holds NaN or infinity, or the merge makes it.
        CheckpointError: tensors that must agree do not.

    Example:
        >>> from umaf.merging.running.feeds import Flat
        >>> out = torch.empty(2, dtype=torch.bfloat16)
        >>> merge_into(Work("w", (2,), "mean", (Flat(torch.zeros(2)), Flat(torch.ones(2)))), out)
        >>> out
        tensor([0.5000, 0.5000], dtype=torch.bfloat16)
    """
    rule, room = work.rule, room or Room()
    if not work.numel:
        return
    target = Memory(target) if isinstance(target, Tensor) else target
    last = work.numel if last is None else last
    if rule.function is None:
        copy(work, target, first, last)
    elif rule.needs.sums and rule.needs.scope == "element":
        _by_sums(work, target, room)
    elif rule.needs.scope == "element":
        if rule.measures(work.options) == "tensor":
            measure = measured([work], room)
        _by_chunks(work, target, room, measure=measure, first=first, last=last)
    else:
        _whole(work, target, room, measure=measure)


def _load(
    work: Work, start: int, stop: int, *, room: Room, stack: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Read a range of all models: deltas and the base, or weights and None; into `stack`, else into the room's."""
    own, ground, rows = room.chunk(len(work.rows), stop - start)
    if stack is None:
        stack = own
    else:
        rows = stack.unbind(0)
    base = _ground(work, start, stop, ground)
    for feed, row in zip(work.rows, rows, strict=True):
        feed.fill(start, stop, row)
        if base is not None:
            row.sub_(base)
    # A sum is NaN or infinite when an entry is; a sum that only overflows is found out by looking closer.
    if not math.isfinite(stack.sum().item()):
        blame(work.feeds, start, stop)
    return stack, base


def _ground(work: Work, start: int, stop: int, room: Tensor) -> Tensor | None:
    if work.ground is None:
        return None
    work.ground.fill(start, stop, room)
    return room


def _keywords_of(work: Work, rule: Rule, measure: Mapping[str, Tensor] | None) -> dict[str, Any]:
    if rule.method is None:
        return {"weight": work.options["weight"]} if "weight" in work.options else {}
    keywords = {name: value for name, value in work.options.items() if name in rule.method.options}
    if measure is not None:
        keywords["measured"] = measure
    return keywords


def _generator(work: Work, rule: Rule, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(derive(work.seed, rule.name, work.name, number)))


def _by_chunks(
    work: Work, target: Target, room: Room, *, measure: Mapping[str, Tensor] | None, first: int, last: int
) -> None:
    rule = work.rule
    keywords, function = _keywords_of(work, rule, measure), rule.function
    for start in range(first, last, CHUNK):
        stop = min(start + CHUNK, last)
        stack, base = _load(work, start, stop, room=room)
        if rule.needs.random:
            keywords["generator"] = _generator(work, rule, start // CHUNK)
        if rule.needs.ground:
            keywords["base"] = base
        result = function(stack, **keywords)  # type: ignore[misc]
        _store(work, result, base, target=target, start=start, stop=stop)


def _by_sums(work: Work, target: Target, room: Room) -> None:
    """Merge by what the rows add up to: kept from the pass that measures where there is room, or else added up anew."""
    rule, sums = work.rule, room.sums(work.numel) if work.numel <= KEPT else None
    keywords, function = _keywords_of(work, rule, measured([work], room, sums=sums)), rule.function
    for start in range(0, work.numel, CHUNK):
        stop = min(start + CHUNK, work.numel)
        if sums is None:
            stack, base = _load(work, start, stop, room=room)
            row = total(stack, out=stack[0])
        else:
            base = _ground(work, start, stop, room.stack(len(work.rows), stop - start)[1])
            row = sums[start:stop]
        result = function(row[None], **keywords)  # type: ignore[misc]
        _store(work, result, base, target=target, start=start, stop=stop)


def _whole(work: Work, target: Target, room: Room, *, measure: Mapping[str, Tensor] | None) -> None:
    rule = work.rule
    keywords, function = _keywords_of(work, rule, measure), rule.function
    for number, (start, shape, view) in enumerate(_ranges(work, rule)):
        stop = start + math.prod(shape)
        stack, weights = _stacked(work, rule, start, stop, room)
        if rule.needs.random:
            keywords["generator"] = _generator(work, rule, number)
        shown = pieces(stack.view(-1, *shape), view)
        grounds = pieces(weights.view(shape), view) if rule.needs.ground else [None] * len(shown)
        made = []
        for piece, ground in zip(shown, grounds, strict=True):
            extra = {"base": ground} if rule.needs.ground else {}
            made.append(function(piece, **extra, **keywords))  # type: ignore[misc]
        result = join(made, view).reshape(-1)
        for begin in range(start, stop, CHUNK):
            end = min(begin + CHUNK, stop)
            base = _ground(work, begin, end, room.stack(len(work.rows), end - begin)[1])
            piece = result[begin - start : end - start]
            _store(work, piece, base, target=target, start=begin, stop=end)


def _stacked(work: Work, rule: Rule, start: int, stop: int, room: Room) -> tuple[Tensor, Tensor]:
    """Read a range of all models whole, `[model, entry]`, and the base's weights where the method wants them."""
    both = room.whole(len(work.rows) + rule.needs.ground, stop - start)
    stack = both[: len(work.rows)]
    for begin in range(start, stop, CHUNK):
        end = min(begin + CHUNK, stop)
        base = _load(work, begin, end, room=room, stack=stack[:, begin - start : end - start])[1]
        if rule.needs.ground and base is not None:
            both[-1, begin - start : end - start] = base
    return stack, both[-1]


def _ranges(work: Work, rule: Rule) -> Iterator[tuple[int, tuple[int, ...], Parts]]:
    """Cut a tensor into what a method is called on: (first entry, shape, how it is shown)."""
    parts = work.parts if rule.needs.matrices else Parts()
    if not (rule.needs.matrices and parts.experts):
        yield 0, work.shape, parts
        return
    experts, *matrix = work.shape
    size = math.prod(matrix)
    together = max(1, BATCH // size) if rule.needs.batched else 1
    for expert in range(0, experts, together):
        count = min(together, experts - expert)
        shape = (count, *matrix) if rule.needs.batched else tuple(matrix)
        yield expert * size, shape, parts


def _store(work: Work, result: Tensor, base: Tensor | None, *, target: Target, start: int, stop: int) -> None:
    """Scale, add the base, look for what is no number, and round into the target."""
    if result.shape != (stop - start,):
        raise ConfigError(
            f"{work.name}: {work.method} gave {list(result.shape)} for {[stop - start]}; a method gives the shape "
            "of one row of its stack."
        )
    if work.scale != 1.0:
        result = result * work.scale
    if base is not None:
        result = base.add_(result)
    if not math.isfinite(result.sum().item()) and not bool(torch.isfinite(result).all()):
        raise NumericalError(
            f"{work.name}: {work.method} made NaN or infinity out of finite weights; look at its options."
        )
    chunk = target.take(start, stop).copy_(result)
    if chunk.dtype in _NARROW and not bool(torch.isfinite(chunk.float()).all()):
        raise NumericalError(
            f"{work.name} has entries beyond the range of {str(chunk.dtype).removeprefix('torch.')}; "
            "write it as bfloat16 or float32."
        )
    target.give(start, stop)
