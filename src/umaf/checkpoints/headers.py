"""Headers of safetensors files: what lies where, checked before any weight is read."""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umaf.checkpoints.dtypes import size_of
from umaf.errors import CheckpointError

LONGEST = 100_000_000
"""Bytes of the longest header that the format allows."""


@dataclass(frozen=True)
class Entry:
    """One stored tensor.

    Attributes:
        name: in the checkpoint.
        dtype: in safetensors' words ("BF16").
        shape: () for a single number.
        file: that holds it.
        start: byte of the file where its data begin.
        size: bytes of its data.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    size: int

    @property
    def numel(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def read_header(path: Path) -> dict[str, Entry]:
    """Read what a safetensors file holds, in the order of its data.

    Raises:
        CheckpointError: the file is not there, is no safetensors file, is cut short, or its header contradicts itself.
    """
    try:
        length = path.stat().st_size
        with path.open("rb") as file:
            first = file.read(8)
            size = struct.unpack("<Q", first)[0] if len(first) == 8 else LONGEST + 1
            text = file.read(size) if size <= min(LONGEST, length) else b""
    except OSError as problem:
        raise CheckpointError(f"{path} cannot be read ({problem.strerror}); check the path.") from problem
    if first == b"version ":
        raise CheckpointError(f"{path} is a pointer of git-lfs, not the weights; run `git lfs pull` there.")
    if size > LONGEST or not text.startswith(b"{"):
        raise CheckpointError(f"{path} is no safetensors file ({length} bytes, no header); fetch it again.")
    if len(text) < size:
        raise CheckpointError(
            f"{path} is cut short: {length} bytes of a header of {8 + size}; fetch it again."
        )
    try:
        content = json.loads(text, object_pairs_hook=_no_repeats(path))
    except CheckpointError:
        raise
    except ValueError as problem:
        raise CheckpointError(
            f"{path} has a header that is no JSON ({problem}); fetch it again."
        ) from problem
    except RecursionError as problem:
        raise CheckpointError(f"{path} has a header that nests without end; fetch it again.") from problem
    notes = content.pop("__metadata__", None)
    if notes is not None and not (
        isinstance(notes, dict) and all(isinstance(x, str) for x in notes.values())
    ):
        raise CheckpointError(f"{path} has a __metadata__ that is no map of texts; fetch it again.")
    entries = [_entry(path, name, found, 8 + size) for name, found in content.items()]
    entries.sort(key=lambda entry: (entry.start, entry.size))
    _check_places(path, entries, 8 + size, length)
    return {entry.name: entry for entry in entries}


def _no_repeats(path: Path):
    def hook(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise CheckpointError(f"{path} holds {twice} twice; fetch it again.")
        return found

    return hook


def _entry(path: Path, name: str, found: Any, data: int) -> Entry:
    try:
        dtype, shape = found["dtype"], tuple(found["shape"])
        begin, end = found["data_offsets"]
    except (TypeError, KeyError, ValueError) as problem:
        raise CheckpointError(
            f"{path} does not say where {name} lies ({problem!r}); fetch it again."
        ) from problem
    whole = all(type(number) is int for number in (*shape, begin, end))  # True and 2.0 are none
    if not whole or type(found["shape"]) is not list:
        raise CheckpointError(
            f"{path} gives {name} a shape or a place that is no list of integers; fetch it again."
        )
    try:
        wanted = math.prod(shape) * size_of(dtype)
    except CheckpointError as problem:
        raise CheckpointError(f"{path}: {name}: {problem}") from problem
    if end - begin != wanted or begin < 0 or min(shape, default=0) < 0:
        raise CheckpointError(
            f"{path}: {name} has {end - begin} bytes, and {dtype} {list(shape)} takes {wanted}; fetch it again."
        )
    return Entry(name, dtype, shape, path, data + begin, wanted)


def _check_places(path: Path, entries: list[Entry], data: int, length: int) -> None:
    place = data
    for entry in entries:
        if entry.start != place:
            raise CheckpointError(
                f"{path}: {entry.name} overlaps another tensor or leaves a gap; fetch it again."
            )
        place += entry.size
    if place > length:
        cut = next(entry.name for entry in entries if entry.start + entry.size > length)
        raise CheckpointError(
            f"{path} is cut short: {length} bytes, and {place} are announced, from {cut} on; fetch it again."
        )
    if place < length:
        raise CheckpointError(
            f"{path} has {length - place} bytes more than its header announces; fetch it again."
        )


def read_index(path: Path) -> dict[str, str]:
    """Read which file of a sharded checkpoint holds which tensor.

    Raises:
        CheckpointError: no JSON, or no `weight_map` in it.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        return {str(name): str(file) for name, file in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise CheckpointError(f"{path} is no index of shards ({problem!r}); fetch it again.") from problem


def read_shards(folder: Path, index: Mapping[str, str], name: str) -> dict[str, Entry]:
    """Read the headers of every shard, and check that index and shards say the same.

    Args:
        folder: of the shards.
        index: which file holds which tensor.
        name: of the index, for messages.

    Raises:
        CheckpointError: a shard is missing or broken, or index and shards do not agree.
    """
    entries: dict[str, Entry] = {}
    for file in dict.fromkeys(index.values()):
        if Path(file).name != file or not (folder / file).is_file():
            raise CheckpointError(f"{folder / file} is missing, and {name} names it; fetch it again.")
        for tensor, entry in read_header(folder / file).items():
            if index.get(tensor) != file:
                other = f"puts it into {index[tensor]}" if tensor in index else "does not name it"
                raise CheckpointError(
                    f"{folder / file} holds {tensor}, and {name} {other}; fetch both again."
                )
            entries[tensor] = entry
    absent = next((tensor for tensor in index if tensor not in entries), None)
    if absent is not None:
        raise CheckpointError(f"{name} puts {absent} into {folder / index[absent]}, which does not hold it.")
    return entries
