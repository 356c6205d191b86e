"""Low-rank deltas where a merge wants entries: a feed that multiplies out no more rows than it is asked for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from umaf.deltas.lowrank import LowRank


@dataclass(frozen=True)
class Thin:
    """A low-rank delta as the entries of a stored tensor, perhaps added to a base.

    Attributes:
        delta: `[*expert, out, in]`.
        transposed: the tensor is stored as `[*expert, in, out]`.
        base: `[numel]`, what it is added to; None for the delta alone.
        where: adapter and module, for messages.

    Example:
        >>> out = torch.empty(3)
        >>> Thin(LowRank(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0], [10.0]]))).fill(1, 4, out)
        >>> out
        tensor([ 2., 10., 20.])
    """

    delta: LowRank
    transposed: bool = False
    base: Tensor | None = None
    where: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the stored tensor."""
        *batch, out, width = self.delta.shape
        return (*batch, width, out) if self.transposed else (*batch, out, width)

    @property
    def numel(self) -> int:
        """Number of entries."""
        return torch.Size(self.shape).numel()

    def fill(self, start: int, stop: int, out: Tensor) -> None:
        """Write a range of entries into `out`."""
        a, b = self.delta.a, self.delta.b
        left, right = (a.mT, b.mT) if self.transposed else (b, a)
        if self.delta.rank == 0:
            out.zero_()
            if self.base is not None:
                out.add_(self.base[start:stop])
            return
        left, right = left.reshape(-1, *left.shape[-2:]), right.reshape(-1, *right.shape[-2:])
        rows, width = left.shape[-2], right.shape[-1]
        first, last = start // width, -(-stop // width)
        found = torch.empty(last - first, width, dtype=torch.float32)
        for expert in range(first // rows, -(-last // rows)):
            low, high = max(first, expert * rows), min(last, (expert + 1) * rows)
            own = left[expert, low - expert * rows : high - expert * rows]
            torch.matmul(own, right[expert], out=found[low - first : high - first])
        out.copy_(found.view(-1)[start - first * width : stop - first * width])
        if self.base is not None:
            out.add_(self.base[start:stop])


@dataclass(frozen=True)
class Zeros:
    """A tensor of zeros: the base of what are deltas already.

    Example:
        >>> out = torch.ones(2)
        >>> Zeros(5).fill(0, 2, out)
        >>> out
        tensor([0., 0.])
    """

    numel: int
    where: str = "the base"

    def fill(self, start: int, stop: int, out: Tensor) -> None:
        """Write zeros into `out`."""
        out.zero_()
