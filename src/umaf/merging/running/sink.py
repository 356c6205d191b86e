"""Where merged entries go: memory that is there, or a place in a file."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from umaf.checkpoints import Layout, torch_dtype
from umaf.errors import OutputError

Watch: TypeAlias = Callable[[str, int, memoryview], None]
"""Told of what is written: tensor, byte of its file, and the bytes."""


class Target(Protocol):
    """The tensor of the result, in its dtype, filled range by range.

    Attributes:
        dtype: of the result.
    """

    @property
    def dtype(self) -> torch.dtype: ...

    def take(self, start: int, stop: int) -> Tensor:
        """Give memory for the flat entries from `start` up to, without, `stop`."""
        ...

    def give(self, start: int, stop: int) -> None:
        """Say that what was taken last is written."""


class Memory:
    """A tensor in memory.

    Args:
        flat: `[numel]`.

    Example:
        >>> flat = torch.zeros(3)
        >>> _ = Memory(flat).take(1, 2).fill_(5)
        >>> flat
        tensor([0., 5., 0.])
    """

    def __init__(self, flat: Tensor) -> None:
        self.flat, self.dtype = flat, flat.dtype

    def take(self, start: int, stop: int) -> Tensor:
        """Give the entries themselves."""
        return self.flat[start:stop]

    def give(self, start: int, stop: int) -> None:
        """Nothing is left to be done."""


class Place:
    """The place of a tensor in a file. What is taken is a buffer; giving it writes it where it belongs.

    Writing to a file costs a third of writing to its memory map, whose pages the kernel must bring in one by one.

    Args:
        file: an open file.
        start: byte where the tensor begins.
        dtype: of the tensor.
        path: of the file, for messages.
        watch: told of every range (its first byte in the file, its bytes) before it is written.
    """

    def __init__(
        self,
        file: int,
        start: int,
        dtype: torch.dtype,
        *,
        path: Path,
        watch: Callable[[int, memoryview], None] | None = None,
    ) -> None:
        self.dtype = dtype
        self._file, self._start, self._path, self._watch = file, start, path, watch
        self._buffer = torch.empty(0, dtype=dtype)

    def take(self, start: int, stop: int) -> Tensor:
        """Give a buffer for a range."""
        if self._buffer.numel() < stop - start:
            self._buffer = torch.empty(stop - start, dtype=self.dtype)
        return self._buffer[: stop - start]

    def give(self, start: int, stop: int) -> None:
        """Write the buffer.

        Raises:
            OutputError: the disk does not take it.
        """
        data = self._buffer[: stop - start].view(torch.uint8).numpy().data
        place = self._start + start * self.dtype.itemsize
        if self._watch is not None:
            self._watch(place, data)
        try:
            while data.nbytes:
                written = os.pwrite(self._file, data, place)
                data, place = data[written:], place + written
        except OSError as problem:
            raise OutputError(
                f"{self._path} cannot be written ({problem.strerror}); make room, and go on with --resume."
            ) from problem


class Files:
    """The files of a draft, opened when they are first written to, by threads and processes side by side.

    Args:
        folder: the draft.
        layout: where tensors lie in it.
        watch: told of what is written, before it is.
    """

    def __init__(self, folder: Path, layout: Layout, *, watch: Watch | None = None) -> None:
        self._folder, self._layout, self._watch = folder, layout, watch
        self._open: dict[str, int] = {}
        self._lock = threading.Lock()

    def place(self, name: str) -> Place:
        """Give the place of a tensor."""
        slot = self._layout.slots[name]
        path = self._folder / slot.file
        with self._lock:
            if slot.file not in self._open:
                self._open[slot.file] = os.open(path, os.O_WRONLY)
            watch = None if self._watch is None else partial(self._watch, name)
            return Place(self._open[slot.file], slot.start, torch_dtype(slot.dtype), path=path, watch=watch)

    def __enter__(self) -> Files:
        """Give itself; the files are closed at the end of the block."""
        return self

    def __exit__(self, *problem: object) -> None:
        """Close every file."""
        while self._open:
            os.close(self._open.popitem()[1])
