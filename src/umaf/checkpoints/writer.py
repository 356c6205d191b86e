"""Writing a checkpoint in place: several workers, each tensor at its final position, and what is whole is known."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from umaf.checkpoints.checkpoint import INDEX
from umaf.checkpoints.digest import Digest
from umaf.checkpoints.dtypes import torch_dtype
from umaf.checkpoints.journal import Journal
from umaf.checkpoints.layout import Layout, Slot
from umaf.checkpoints.pages import Pages
from umaf.errors import OutputError
from umaf.files import write_json

_BLOCK = 1 << 24


class Slots:
    """The places of a layout's tensors, on memory maps; threads and processes write to them side by side.

    Args:
        folder: that holds the laid out files.
        layout: of the checkpoint.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder, self.layout = folder, layout
        self._maps: dict[str, Pages] = {}
        self._lock = threading.Lock()

    def slot(self, name: str) -> Tensor:
        """Give a tensor's place, `[numel]` in its dtype; what is written to it is in the file."""
        place = self.layout.slots[name]
        dtype = torch_dtype(place.dtype)
        if not place.size:
            return torch.empty(0, dtype=dtype)
        return self._pages(place.file).tensor(place.start, place.size // dtype.itemsize, dtype)

    def release(self, name: str) -> None:
        """Let the pages of a tensor go from this process; small tensors go together."""
        place = self.layout.slots[name]
        if place.size and place.file in self._maps:
            self._maps[place.file].release(place.start, place.size)

    def checksum(self, name: str) -> int:
        """CRC-32 of a tensor's bytes."""
        place = self.layout.slots[name]
        found, end = 0, place.start + place.size
        with self._pages(place.file).view() as view:
            for start in range(place.start, end, _BLOCK):
                with view[start : min(start + _BLOCK, end)] as block:
                    found = zlib.crc32(block, found)
        return found

    def _pages(self, file: str) -> Pages:
        pages = self._maps.get(file)
        if pages is None:
            with self._lock:
                pages = self._maps.get(file)
                if pages is None:
                    pages = self._maps[file] = Pages(self.folder / file, write=True)
        return pages


class Writer(Slots):
    """A checkpoint that is being written.

    Every file has its full length and its header from the start, so a full disk is found before the first number is
    computed. A journal lists what is whole, with a checksum, so that an interrupted run can go on; it is locked, so
    that two runs never write to one draft.

    Args:
        folder: the draft.
        layout: of the checkpoint.
        resume: go on with what the draft holds.
        key: hash of all that decides the result; a draft of another result is not gone on with.

    Attributes:
        whole: names of tensors that are whole.

    Raises:
        OutputError: the disk is full, another run writes here, or the draft is of something else.
    """

    def __init__(self, folder: Path, layout: Layout, *, resume: bool = False, key: str = "") -> None:
        super().__init__(folder, layout)
        self.whole: set[str] = set()
        self._journal = Journal(folder)
        try:
            noted = self._noted(key) if resume else None
            if noted is None:
                self._allocate()
                self._journal.clear()
                self._journal.note({"key": key})
            else:
                self._check(noted)
        except BaseException:
            self._journal.close()
            raise
        self._digests = _digests(layout)
        self._sums: dict[str, tuple[int, int]] = {}

    def heed(self, name: str, start: int, data: memoryview) -> None:
        """Take the checksums of what is being written while it is near the processor, and spare `done` reading it.

        Args:
            name: of the tensor.
            start: byte of its file where the data will lie; what comes in another order is read by `done`.
            data: what will not be written again.
        """
        place = self.layout.slots[name]
        found, known = self._sums.get(name, (0, place.start))
        if start == known:
            self._sums[name] = zlib.crc32(data, found), start + data.nbytes
        self._digests[place.file].heed(start, data)

    def done(self, name: str, note: Mapping[str, Any] | None = None) -> None:
        """Say that a tensor is whole; its pages leave this process.

        Args:
            name: of the tensor.
            note: anything to be kept in the journal with it.

        Raises:
            OutputError: the disk is full.
        """
        place = self.layout.slots[name]
        found, known = self._sums.pop(name, (0, -1))
        checksum = found if known == place.start + place.size else self.checksum(name)
        with self._lock:
            self._journal.note({**(note or {}), "tensor": name, "checksum": checksum})
            self.whole.add(name)
        self._digests[place.file].advance(self._pages(place.file), self.whole)
        self.release(name)

    def close(self) -> dict[str, str]:
        """End the writing. Where every tensor is whole: flush, and write the index.

        The journal stays until the draft gets its name, so that a run that is killed between can go on too.

        Returns:
            The sha256 of each file, by name; empty where something is missing, and the draft is left to be resumed.

        Raises:
            OutputError: the disk does not take the data.
        """
        complete = len(self.whole) == len(self.layout.slots)
        try:
            sums = {shard.name: self._seal(shard.name) for shard in self.layout.shards} if complete else {}
            if complete and self.layout.index is not None:
                write_json(self.folder / INDEX, self.layout.index)
        except OSError as problem:
            raise OutputError(
                f"{self.folder} cannot be written ({problem.strerror}); make room."
            ) from problem
        finally:
            self._maps.clear()
            self._journal.close()
        return sums

    def _seal(self, file: str) -> str:
        found = self._digests[file].finish(self._pages(file), self.whole)
        with (self.folder / file).open("rb") as opened:
            os.fsync(opened.fileno())
        return found

    def _noted(self, key: str) -> dict[str, int] | None:
        """Read what an interrupted run noted; None where nothing can be kept."""
        rows = self._journal.read()
        if not rows:
            return None
        if rows[0].get("key") != key:
            raise OutputError(
                f"{self.folder} is the beginning of another result: the recipe or an input has changed; run it without "
                "--resume."
            )
        if not all(
            _begun(self.folder / shard.name, shard.header, shard.size) for shard in self.layout.shards
        ):
            return None
        return {row["tensor"]: row["checksum"] for row in rows[1:] if {"tensor", "checksum"} <= row.keys()}

    def _check(self, noted: Mapping[str, int]) -> None:
        for name in sorted(noted.keys() & self.layout.slots.keys(), key=self._position):
            if self.checksum(name) == noted[name]:
                self.whole.add(name)
            self.release(name)

    def _position(self, name: str) -> tuple[str, int]:
        place = self.layout.slots[name]
        return place.file, place.start

    def _allocate(self) -> None:
        for path in (*self.folder.glob("*.safetensors"), self.folder / INDEX):
            path.unlink(missing_ok=True)  # of a draft that was laid out otherwise
        wanted = sum(shard.size for shard in self.layout.shards)
        try:
            for shard in self.layout.shards:
                with (self.folder / shard.name).open("wb") as file:
                    _reserve(file.fileno(), shard.size, self.folder)
                    file.write(shard.header)
        except OSError as problem:
            for shard in self.layout.shards:
                (self.folder / shard.name).unlink(missing_ok=True)
            free = shutil.disk_usage(self.folder).free
            self._journal.close(remove=True)
            raise OutputError(
                f"The result takes {wanted} bytes, and {self.folder.parent} does not take them ({problem.strerror}, "
                f"{free} free); make room, or write it elsewhere."
            ) from problem


def _digests(layout: Layout) -> dict[str, Digest]:
    places: dict[str, list[tuple[str, Slot]]] = {shard.name: [] for shard in layout.shards}
    for name, place in layout.slots.items():
        places[place.file].append((name, place))
    return {
        shard.name: Digest(
            shard.header, sorted(places[shard.name], key=lambda one: (one[1].start, one[1].size))
        )
        for shard in layout.shards
    }


def _begun(path: Path, header: bytes, size: int) -> bool:
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_size == size and file.read(len(header)) == header
    except OSError:
        return False


def _reserve(file: int, size: int, folder: Path) -> None:
    """Give a file its length and the disk's promise to hold it: a map on a full disk kills whoever writes to it."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
            return
        except OSError as problem:
            if problem.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
    if shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.truncate(file, size)
