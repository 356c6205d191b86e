"""What an adapter does to one stored tensor: four kinds of change, each exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from umaf.deltas.lowrank import LowRank


@dataclass(frozen=True)
class Factors:
    """A low-rank delta is added, and then, with DoRA, every row of the sum is given a length.

    Attributes:
        delta: `[*expert, out, in]`.
        transposed: the tensor is stored as `[*expert, in, out]`.
        magnitude: `[out]`; None without DoRA.
    """

    delta: LowRank
    transposed: bool = False
    magnitude: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the stored tensor."""
        *batch, out, width = self.delta.shape
        return (*batch, width, out) if self.transposed else (*batch, out, width)


@dataclass(frozen=True)
class Added:
    """A tensor is added."""

    values: Tensor


@dataclass(frozen=True)
class Whole:
    """A tensor takes the place of the stored one."""

    values: Tensor


@dataclass(frozen=True)
class Rows:
    """Rows take the place of stored ones.

    Attributes:
        index: int64 `[row]`.
        values: `[row, width]`.
    """

    index: Tensor
    values: Tensor


Change: TypeAlias = Factors | Added | Whole | Rows


def changed(weight: Tensor, change: Change) -> Tensor:
    """Apply a change; the tensor that is given stays as it is.

    Args:
        weight: as stored, in float32 (or float64).
        change: what is done to it.

    Source: Liu et al., DoRA, ICML 2024, eq. 5, for magnitudes.

    Example:
        >>> changed(torch.zeros(2), Added(torch.ones(2)))
        tensor([1., 1.])
    """
    if isinstance(change, Added):
        return weight + change.values
    if isinstance(change, Whole):
        return change.values.to(weight.dtype)
    if isinstance(change, Rows):
        return weight.index_copy(0, change.index, change.values.to(weight.dtype))
    a, b = change.delta.a.to(weight.dtype), change.delta.b.to(weight.dtype)
    if a.ndim == 2:
        new = torch.addmm(weight, a.mT, b.mT) if change.transposed else torch.addmm(weight, b, a)
    else:
        new = weight + (a.mT @ b.mT if change.transposed else b @ a)
    if change.magnitude is None:
        return new
    rows = new.mT if change.transposed else new
    lengths = torch.linalg.vector_norm(rows, dim=-1)
    rows = rows * (change.magnitude.to(new.dtype) / lengths).unsqueeze(-1)
    return rows.mT.contiguous() if change.transposed else rows
