"""Several processes that train one thing: each takes other draws, and their gradients are averaged."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Devices:
    """The processes of a training.

    Attributes:
        rank: number of this process.
        count: how many there are.
    """

    rank: int
    count: int

    @property
    def first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def share(self, gradients: Sequence[Tensor]) -> None:
        """Average gradients over the processes, in place."""
        if self.count == 1:
            return
        for gradient in gradients:
            torch.distributed.all_reduce(gradient)
            gradient /= self.count

    def draw(self, step: int) -> int:
        """Number the draws of this process in a step, so that no two processes draw the same.

        Example:
            >>> [Devices(rank, 2).draw(3) for rank in (0, 1)]
            [6, 7]
        """
        return step * self.count + self.rank


def alone() -> Devices:
    """Give the one process of an ordinary training."""
    return Devices(0, 1)


def found() -> Devices:
    """Find the processes that `accelerate launch` (or torchrun) started; this one alone otherwise.

    Example:
        >>> found().count
        1
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return alone()
    from accelerate import PartialState  # it joins the processes' group as a side effect

    state = PartialState()
    return Devices(state.process_index, state.num_processes)
