"""Where every tensor of a new checkpoint will lie, known before the first is written."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TypeAlias

from umaf.checkpoints.dtypes import size_of
from umaf.checkpoints.headers import LONGEST
from umaf.errors import CheckpointError

_Sized: TypeAlias = tuple[int, int, str, str, tuple[int, ...]]
"""Width of a number (negative, to sort by), bytes of the data, name, dtype and shape."""


@dataclass(frozen=True)
class Slot:
    """The place of one tensor.

    Attributes:
        file: name of the shard.
        start: byte of the file where its data begin.
        size: bytes of its data.
        dtype: in safetensors' words.
        shape: of the tensor.
    """

    file: str
    start: int
    size: int
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Shard:
    """One file: its name, the bytes before the data, and its whole length."""

    name: str
    header: bytes
    size: int


@dataclass(frozen=True)
class Layout:
    """All files of a checkpoint and every tensor's place in them."""

    shards: tuple[Shard, ...]
    slots: dict[str, Slot] = field(default_factory=dict)

    @property
    def index(self) -> dict | None:
        """Content of the index file; None where one shard needs none."""
        if len(self.shards) == 1:
            return None
        total = sum(slot.size for slot in self.slots.values())
        return {
            "metadata": {"total_size": total},
            "weight_map": {name: self.slots[name].file for name in sorted(self.slots)},
        }


def lay_out(
    tensors: Sequence[tuple[str, str, tuple[int, ...]]], *, shard_bytes: int = 5_000_000_000
) -> Layout:
    """Give every tensor its place, in the given order from shard to shard.

    Args:
        tensors: name, dtype in safetensors' words, and shape of each.
        shard_bytes: data of one file, at most; a larger tensor gets a file of its own.

    Raises:
        CheckpointError: a name comes twice, or there is no tensor at all.

    Example:
        >>> lay_out([("a", "F32", (2,)), ("b", "BF16", (3,))]).slots["b"].size
        6
    """
    if not tensors:
        raise CheckpointError("A checkpoint of no tensors was asked for; give at least one.")
    groups: list[list[_Sized]] = [[]]
    held, seen = 0, {"__metadata__"}
    for name, dtype, shape in tensors:
        if name in seen:
            raise CheckpointError(f"The tensor {name} was asked for twice; give every tensor once.")
        seen.add(name)
        width = size_of(dtype)
        size = math.prod(shape) * width
        if groups[-1] and held + size > shard_bytes:
            groups.append([])
            held = 0
        groups[-1].append((-width, size, name, dtype, tuple(shape)))
        held += size
    count = len(groups)
    shards, slots = [], {}
    for number, group in enumerate(groups):
        name = "model.safetensors" if count == 1 else f"model-{number + 1:05d}-of-{count:05d}.safetensors"
        shard, places = _shard(name, group)
        shards.append(shard)
        slots |= places
    # The order asked for, whatever the order in the files.
    return Layout(tuple(shards), {tensor[0]: slots[tensor[0]] for tensor in tensors})


def _shard(file: str, group: list[_Sized]) -> tuple[Shard, dict[str, Slot]]:
    # Wide numbers first, so that every tensor begins at a multiple of its number's width.
    group.sort(key=itemgetter(0))
    listed: dict[str, object] = {"__metadata__": {"format": "pt"}}
    place = 0
    for _, size, name, dtype, shape in group:
        listed[name] = {"dtype": dtype, "shape": shape, "data_offsets": (place, place + size)}
        place += size
    text = json.dumps(listed, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > LONGEST:
        raise CheckpointError(
            f"The {len(group)} tensors of {file} take a header of {len(text)} bytes, and the format allows {LONGEST}; "
            "ask for smaller shards."
        )
    header = struct.pack("<Q", len(text)) + text
    slots = {}
    start = len(header)
    for _, size, name, dtype, shape in group:
        slots[name] = Slot(file, start, size, dtype, shape)
        start += size
    return Shard(file, header, start), slots
