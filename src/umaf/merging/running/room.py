"""The float32 memory of one worker: made once, and used again for every chunk and every tensor."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 65_536
"""Entries of each model that are merged at a time. Random methods draw anew for each chunk: never change it."""

KEPT = 1 << 26
"""Entries of the largest tensor whose sum over models is kept between two passes (256 MiB); no bit depends on it."""


class Room:
    """The float32 memory of one worker, used again for every chunk and every tensor.

    Example:
        >>> stack, base = Room().stack(2, 5)
        >>> stack.shape, base.shape
        (torch.Size([2, 5]), torch.Size([5]))
    """

    def __init__(self) -> None:
        # glibc gives the memory of a chunk back to the kernel whenever it is freed, and every page of the next one is
        # brought in and cleared anew. Freeing one large block, never touched, tells it to keep what is smaller.
        torch.empty(1 << 24, dtype=torch.uint8)
        self._chunks = torch.empty(0)
        self._whole = torch.empty(0)
        self._sums = torch.empty(0)
        self._last = (0, 0)
        self._views: tuple[Tensor, Tensor, tuple[Tensor, ...]] = self._chunks, self._chunks, ()

    def stack(self, models: int, entries: int) -> tuple[Tensor, Tensor]:
        """Give memory for chunks `[models, entries]` and of the base `[entries]`; what it held before is gone."""
        return self.chunk(models, entries)[:2]

    def chunk(self, models: int, entries: int) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Give the same memory, and each row of the stack `[entries]` by itself."""
        if self._last != (models, entries):
            if self._chunks.numel() < (models + 1) * entries:
                self._chunks = torch.empty((models + 1) * max(entries, CHUNK))
            both = self._chunks[: (models + 1) * entries].view(models + 1, entries)
            self._last, self._views = (
                (models, entries),
                (both[:models], both[models], both[:models].unbind(0)),
            )
        return self._views

    def whole(self, models: int, entries: int) -> Tensor:
        """Give memory for whole tensors `[models, entries]`, beside that for chunks."""
        if self._whole.numel() < models * entries:
            self._whole = torch.empty(0)  # the old memory goes before the new comes
            self._whole = torch.empty(models * entries)
        return self._whole[: models * entries].view(models, entries)

    def sums(self, entries: int) -> Tensor:
        """Give memory for one number for each entry of a tensor, `[entries]`, beside the others."""
        if self._sums.numel() < entries:
            self._sums = torch.empty(0)
            self._sums = torch.empty(entries)
        return self._sums[:entries]
