"""A file's memory map: tensors lie in it where the file has them, and pages that were used are let go."""

from __future__ import annotations

import mmap
import threading
import warnings
from pathlib import Path

import torch
from torch import Tensor

# The kernel maps pages around the touched one, up to 2 MiB: letting go of just the touched ones leaves the rest.
_AROUND = 1 << 21
# Letting go costs some microseconds, and pages that are still needed come back one fault at a time.
_STEP = 1 << 22

with warnings.catch_warnings():
    # torch warns, once a process, that a read-only map cannot be written to. Nothing here writes to one.
    warnings.simplefilter("ignore")
    torch.frombuffer(b"\0", dtype=torch.uint8)


class Pages:
    """The bytes of one file, as a memory map that many threads use.

    Args:
        path: of the file; not empty.
        write: what is written to the tensors is written to the file; otherwise nothing must be written to them.

    Raises:
        OSError: the file cannot be opened or mapped.
    """

    def __init__(self, path: Path, *, write: bool = False) -> None:
        with path.open("r+b" if write else "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_WRITE if write else mmap.ACCESS_READ)
        self.length = len(self._map)
        self._lock = threading.Lock()
        self._low, self._high, self._passed = self.length, 0, 0

    def tensor(self, start: int, count: int, dtype: torch.dtype) -> Tensor:
        """Give `count` numbers (at least one) from byte `start` on, where they lie; at any start, aligned or not."""
        return torch.frombuffer(self._map, dtype=dtype, count=count, offset=start)

    def view(self) -> memoryview:
        """Give the bytes; the view is to be released by whoever asked for it."""
        return memoryview(self._map)

    def release(self, start: int, size: int) -> None:
        """Give a range back; its pages leave this process, at the latest with the next 4 MiB.

        Tensors in it stay valid, and what was written to them stays with the file.
        """
        with self._lock:
            self._low = min(self._low, start)
            self._high = max(self._high, start + size)
            self._passed += size
            if self._passed < _STEP:
                return
            low, high = self._low, self._high
            self._low, self._high, self._passed = self.length, 0, 0
        if hasattr(mmap, "MADV_DONTNEED"):
            low -= low % _AROUND
            self._map.madvise(mmap.MADV_DONTNEED, low, min(high + -high % _AROUND, self.length) - low)
