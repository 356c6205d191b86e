"""Reading a file range by range into memory that is used again, by many threads side by side.

A memory map costs more: the kernel brings its pages in one group at a time, and takes them away again. Copying 128 KB
out of the disk's cache into memory that is near the processor takes half of that.
"""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

CAN_READ = hasattr(os, "preadv")
"""Whether this system reads at a place of a file without moving a common cursor."""

MOST = 300
"""Files that are kept open at a time: a process may have no more than some 1,000, and a large model has 200."""

_LEAST = 1 << 17
_rooms = threading.local()
_open: weakref.WeakSet[Reads] = weakref.WeakSet()


class Reads:
    """The bytes of one open file.

    Args:
        path: of the file.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._number = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        weakref.finalize(self, os.close, self._number)
        _open.add(self)

    def into(self, start: int, data: np.ndarray) -> None:
        """Fill a byte array with what the file holds from byte `start` on.

        Raises:
            OSError: the file cannot be read.
            EOFError: it ends before.
        """
        done = os.preadv(self._number, [data.data], start)
        while done < data.nbytes:
            more = os.preadv(self._number, [data[done:].data], start + done)
            if not more:
                raise EOFError
            done += more


def opened(path: Path) -> Reads | None:
    """Open a file; None where too many are open, or this system cannot read so.

    Raises:
        OSError: the file cannot be opened.
    """
    return Reads(path) if CAN_READ and len(_open) < MOST else None


def room(count: int, dtype: torch.dtype) -> tuple[Tensor, np.ndarray]:
    """Give this thread's memory for `count` numbers, as numbers and as bytes; what it held before is gone.

    Example:
        >>> numbers, data = room(3, torch.bfloat16)
        >>> numbers.shape, data.nbytes
        (torch.Size([3]), 6)
    """
    last = getattr(_rooms, "last", None)
    if last is not None and last[0] == (count, dtype):
        return last[1]
    size = count * dtype.itemsize
    whole = getattr(_rooms, "whole", None)
    if whole is None or whole.nbytes < size:
        whole = _rooms.whole = np.empty(max(size, _LEAST), np.uint8)
    data = whole[:size]
    found = torch.from_numpy(data).view(dtype), data
    _rooms.last = ((count, dtype), found)
    return found
