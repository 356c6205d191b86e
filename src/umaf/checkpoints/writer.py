"""Writing a checkpoint in place: several workers, each tensor at its final position, and what is whole is known."""

from __future__ import annotations

import fcntl
import hashlib
import json
import mmap
import os
import shutil
import threading
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from umaf.checkpoints.checkpoint import INDEX, release
from umaf.checkpoints.draft import JOURNAL
from umaf.checkpoints.dtypes import torch_dtype
from umaf.checkpoints.layout import Layout
from umaf.errors import OutputError
from umaf.files import write_json

_BLOCK = 1 << 22


class Slots:
    """The places of a layout's tensors, on memory maps; threads and processes write to them side by side.

    Args:
        folder: that holds the laid out files.
        layout: of the checkpoint.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder, self.layout = folder, layout
        self._maps: dict[str, mmap.mmap] = {}
        self._lock = threading.Lock()

    def slot(self, name: str) -> Tensor:
        """Give a tensor's place, `[numel]` in its dtype; what is written to it is in the file."""
        place = self.layout.slots[name]
        dtype = torch_dtype(place.dtype)
        if not place.size:
            return torch.empty(0, dtype=dtype)
        count = place.size // dtype.itemsize
        return torch.frombuffer(self._map(place.file), dtype=dtype, count=count, offset=place.start)

    def release(self, name: str) -> None:
        """Let the pages of a tensor go from this process."""
        place = self.layout.slots[name]
        if place.size and place.file in self._maps:
            release(self._maps[place.file], place.start, place.size)

    def checksum(self, name: str) -> int:
        """CRC-32 of a tensor's bytes."""
        place = self.layout.slots[name]
        if not place.size:
            return 0
        with memoryview(self._map(place.file)) as pages:
            return zlib.crc32(pages[place.start : place.start + place.size])

    def _map(self, file: str) -> mmap.mmap:
        pages = self._maps.get(file)
        if pages is None:
            with self._lock:
                pages = self._maps.get(file)
                if pages is None:
                    with (self.folder / file).open("r+b") as opened:
                        pages = self._maps[file] = mmap.mmap(opened.fileno(), 0)
        return pages


class Writer(Slots):
    """A checkpoint that is being written.

    Every file has its full length and its header from the start, so a full disk is found before the first number is
    computed. A journal lists what is whole, with a checksum, so that an interrupted run can go on.

    Args:
        folder: the draft.
        layout: of the checkpoint.
        resume: go on with what the draft holds.
        key: hash of all that decides the result; a draft of another result is not gone on with.

    Attributes:
        whole: names of tensors that are whole.

    Raises:
        OutputError: the disk is full, or the draft is of something else.
    """

    def __init__(self, folder: Path, layout: Layout, *, resume: bool = False, key: str = "") -> None:
        super().__init__(folder, layout)
        self.whole: set[str] = set()
        noted = self._noted(key) if resume else None
        if noted is None:
            self._allocate()
        try:
            self._journal = (folder / JOURNAL).open("a" if noted is not None else "w", encoding="utf-8")
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            raise OutputError(
                f"{folder} cannot be written ({problem.strerror}); is another run writing?"
            ) from problem
        if noted is None:
            self._note({"key": key})
        else:
            self.whole = {
                name
                for name, checksum in noted.items()
                if name in layout.slots and self.checksum(name) == checksum
            }

    def done(self, name: str, note: Mapping[str, Any] | None = None) -> None:
        """Say that a tensor is whole; its pages leave this process.

        Args:
            name: of the tensor.
            note: anything to be kept in the journal with it.
        """
        checksum = self.checksum(name)
        self.release(name)
        with self._lock:
            self.whole.add(name)
            self._note({"tensor": name, "checksum": checksum, **(note or {})})

    def close(self) -> dict[str, str]:
        """End the writing. Where every tensor is whole: flush, write the index, and remove the journal.

        Returns:
            The sha256 of each file, by name; empty where something is missing, and the draft is left to be resumed.

        Raises:
            OutputError: the disk does not take the data.
        """
        complete = len(self.whole) == len(self.layout.slots)
        try:
            sums = {shard.name: self._seal(shard.name) for shard in self.layout.shards} if complete else {}
            self._maps.clear()
            if complete and self.layout.index is not None:
                write_json(self.folder / INDEX, self.layout.index)
            self._journal.close()
            if complete:
                (self.folder / JOURNAL).unlink()
        except OSError as problem:
            raise OutputError(
                f"{self.folder} cannot be written ({problem.strerror}); make room."
            ) from problem
        return sums

    def _seal(self, file: str) -> str:
        found = hashlib.sha256()
        with (self.folder / file).open("rb") as opened:
            while block := opened.read(_BLOCK):
                found.update(block)
            os.fsync(opened.fileno())
        return found.hexdigest()

    def _note(self, row: Mapping[str, Any]) -> None:
        self._journal.write(json.dumps(row) + "\n")
        self._journal.flush()

    def _noted(self, key: str) -> dict[str, int] | None:
        """Read the journal of an interrupted run; None where it ended before anything could be kept."""
        rows = []
        try:
            for line in (self.folder / JOURNAL).read_text(encoding="utf-8").splitlines():
                rows.append(json.loads(line))
        except (OSError, ValueError):
            pass  # the last line of a killed run may be half a line
        if not rows:
            return None
        if rows[0].get("key") != key:
            raise OutputError(
                f"{self.folder} is the beginning of another result: the recipe or an input has changed; run it without "
                "--resume."
            )
        sizes = {shard.name: shard.size for shard in self.layout.shards}
        if any(_size(self.folder / name) != size for name, size in sizes.items()):
            return None
        return {row["tensor"]: row["checksum"] for row in rows[1:] if "tensor" in row}

    def _allocate(self) -> None:
        wanted = sum(shard.size for shard in self.layout.shards)
        try:
            for shard in self.layout.shards:
                with (self.folder / shard.name).open("wb") as file:
                    _reserve(file.fileno(), shard.size)
                    file.write(shard.header)
        except OSError as problem:
            free = shutil.disk_usage(self.folder).free
            for shard in self.layout.shards:
                (self.folder / shard.name).unlink(missing_ok=True)
            raise OutputError(
                f"The result takes {wanted} bytes, and {self.folder.parent} does not take them ({problem.strerror}, "
                f"{free} free); make room, or write it elsewhere."
            ) from problem


def _reserve(file: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.truncate(file, size)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1
