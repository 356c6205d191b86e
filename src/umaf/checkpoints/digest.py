"""The sha256 of a file that is written in pieces, taken while the pieces are still near the processor."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Container, Sequence

from umaf.checkpoints.layout import Slot
from umaf.checkpoints.pages import Pages

_BLOCK = 1 << 24


class Digest:
    """A hash that follows the tensors of one file, in their order, as far as they are whole.

    Args:
        header: bytes before the first tensor.
        places: name and place of every tensor, in the order of the file.
    """

    def __init__(self, header: bytes, places: Sequence[tuple[str, Slot]]) -> None:
        self._hash = hashlib.sha256(header)
        self._places = places
        self._next = 0
        self._position = len(header)
        self._lock = threading.Lock()

    def heed(self, start: int, data: memoryview) -> None:
        """Hash bytes that are being written, if all before them is hashed; others are read back when they are whole."""
        if start == self._position and self._lock.acquire(blocking=False):
            try:
                if start == self._position:
                    self._hash.update(data)
                    self._position += data.nbytes
            finally:
                self._lock.release()

    def advance(self, pages: Pages, whole: Container[str]) -> None:
        """Hash on as far as tensors are whole; where another thread is at it, leave it to that one."""
        if self._lock.acquire(blocking=False):
            try:
                self._advance(pages, whole)
            finally:
                self._lock.release()

    def finish(self, pages: Pages, whole: Container[str]) -> str:
        """Hash what is left, all of it whole, and give the 64 hex digits."""
        with self._lock:
            self._advance(pages, whole)
            if self._next < len(self._places):
                raise ValueError(f"{self._places[self._next][0]} is not whole.")
            return self._hash.hexdigest()

    def _advance(self, pages: Pages, whole: Container[str]) -> None:
        with pages.view() as view:
            while self._next < len(self._places) and self._places[self._next][0] in whole:
                place = self._places[self._next][1]
                end = place.start + place.size
                for start in range(max(place.start, self._position), end, _BLOCK):
                    stop = min(start + _BLOCK, end)
                    with view[start:stop] as block:
                        self._hash.update(block)
                    pages.release(start, stop - start)
                self._position = max(self._position, end)
                self._next += 1
