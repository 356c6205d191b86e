"""Tensors that are no numbers to be averaged (counts, positions): copied, where all models agree on them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from umaf.errors import CheckpointError
from umaf.merging.running.feeds import Feed, Flat, Stored, blame
from umaf.merging.running.room import CHUNK
from umaf.merging.running.sink import Target

if TYPE_CHECKING:
    from umaf.merging.running.work import Work


def copy(work: Work, target: Target, first: int, last: int) -> None:
    """Copy a range of entries of the base, or of the first model, rounded to the dtype of the target.

    Args:
        work: with the rule "copy" or "base".
        target: the place of the tensor.
        first: where to begin.
        last: where to stop.

    Raises:
        NumericalError: an entry is NaN or infinite.
        CheckpointError: models differ.
    """
    source, *others = (work.base,) if work.rule.name == "base" and work.base is not None else work.rows
    floating = target.dtype.is_floating_point
    for start in range(first, last, CHUNK):
        stop = min(start + CHUNK, last)
        chunk = target.take(start, stop)
        source.fill(start, stop, chunk)
        if floating and not math.isfinite(float(chunk.sum(dtype=torch.float32))):
            blame([source], start, stop)
        for other in others:
            if not _same(source, other, start, stop):
                raise CheckpointError(
                    f"{work.name} cannot be averaged, and models differ in it: {source.where} and {other.where}; "
                    "leave one of them out."
                )
        target.give(start, stop)


def _same(one: Feed, other: Feed, start: int, stop: int) -> bool:
    if isinstance(one, (Flat, Stored)) and isinstance(other, (Flat, Stored)):
        first, second = one.take(start, stop), other.take(start, stop)
        if first.dtype == second.dtype:
            return torch.equal(first, second)
    left, right = torch.empty(stop - start), torch.empty(stop - start)
    one.fill(start, stop, left)
    other.fill(start, stop, right)
    return torch.equal(left, right)
