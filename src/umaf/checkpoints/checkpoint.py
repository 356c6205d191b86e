"""One door to weights on disk: headers are read and checked at once, weights lie in memory maps until they are used."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from umaf.checkpoints.dtypes import torch_dtype
from umaf.checkpoints.headers import Entry, read_header, read_index, read_shards
from umaf.checkpoints.locate import locate
from umaf.checkpoints.pages import Pages
from umaf.checkpoints.pickles import ENDINGS, pickles_of, read_pickles
from umaf.checkpoints.reads import Reads, opened, room
from umaf.errors import CheckpointError, did_you_mean

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


class _Place(NamedTuple):
    """Where the numbers of a tensor lie: the file (None where it is not read range by range), and its first byte."""

    reads: Reads | None
    first: int
    dtype: torch.dtype


class Checkpoint:
    """An opened checkpoint.

    Attributes:
        name: as it was asked for.
        folder: that holds its files.
        entries: every tensor, by name, file by file in the order of their data.
        config: `config.json`; None where there is none.
        files: weight files.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        entries: Mapping[str, Entry],
        *,
        loaded: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.name = name
        self.folder = folder
        self.entries = dict(entries)
        self.config = _config(folder / "config.json") if folder.is_dir() else None
        self.files = tuple(dict.fromkeys(entry.file for entry in entries.values()))
        self._loaded = dict(loaded or {})
        self._maps: dict[Path, Pages] = {}
        self._reads: dict[Path, Reads | None] = {}
        self._places: dict[str, _Place] = {}
        self._lock = threading.Lock()

    def flat(self, name: str) -> Tensor:
        """Give a tensor's numbers, `[numel]`, in the stored dtype, where they lie; they must not be written to.

        Raises:
            CheckpointError: no such tensor, or its file was cut short or taken away since it was opened.
        """
        entry = self._entry(name)
        if name in self._loaded:
            return self._loaded[name].reshape(-1)
        dtype = torch_dtype(entry.dtype)
        if not entry.size:
            return torch.empty(0, dtype=dtype)
        pages = self._pages(entry.file)
        if entry.start + entry.size > pages.length:
            raise CheckpointError(
                f"{entry.file} was cut short within {name} since it was opened; fetch it again."
            )
        return pages.tensor(entry.start, entry.numel, dtype)

    def fill(self, name: str, start: int, out: Tensor) -> None:
        """Read `len(out)` numbers of a tensor, from its number `start` on, into `out`, in the dtype that this has.

        Nothing is mapped, and no page stays in this process: for those who go through a tensor once, range by range.

        Args:
            name: of the tensor.
            start: its first number that is wanted.
            out: `[count]`, contiguous, in memory of the caller.

        Raises:
            CheckpointError: no such tensor, or its file was cut short or taken away since it was opened.
        """
        count = out.numel()
        place = self._places.get(name)
        try:
            place = place or self._place(name)
            if place.reads is None or not count:
                out.copy_(self.flat(name)[start : start + count])
                return
            begin = place.first + start * place.dtype.itemsize
            if out.dtype == place.dtype:
                place.reads.into(begin, out.view(torch.uint8).numpy())
                return
            numbers, data = room(count, place.dtype)
            place.reads.into(begin, data)
        except (OSError, EOFError) as problem:
            raise CheckpointError(
                f"{self._entry(name).file} was cut short or taken away within {name} since it was opened; fetch it "
                "again."
            ) from problem
        out.copy_(numbers)

    def read(self, name: str) -> Tensor:
        """Give a tensor in its shape and stored dtype, where it lies; it must not be written to.

        Raises:
            CheckpointError: no such tensor.
        """
        return self.flat(name).reshape(self._entry(name).shape)

    def release(self, name: str | None = None) -> None:
        """Tell the kernel that the pages of a tensor (of all, without a name) need not stay in this process.

        Tensors that were given stay valid; their pages come back from the disk's cache when they are touched. Small
        tensors are let go together, so that 50,000 of them cost little.
        """
        for entry in self.entries.values() if name is None else (self._entry(name),):
            pages = self._maps.get(entry.file)
            if pages is not None and entry.size:
                pages.release(entry.start, entry.size)

    def is_loaded(self, name: str) -> bool:
        """Tell whether a tensor was loaded (from a pickle) and does not lie where its entry says."""
        return name in self._loaded

    def close(self) -> None:
        """Let go of the files; those that tensors still point into are closed with the last of these."""
        with self._lock:
            self._maps.clear()
            self._reads.clear()
            self._places.clear()

    def __enter__(self) -> Checkpoint:
        """Give itself, to be closed at the end of a block."""
        return self

    def __exit__(self, *problem: object) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """Say what it is."""
        return f"Checkpoint({self.name!r}, {len(self.entries)} tensors)"

    def _entry(self, name: str) -> Entry:
        if name not in self.entries:
            near = did_you_mean(name, self.entries)
            raise CheckpointError(f"{self.name} has no tensor {name} among its {len(self.entries)}.{near}")
        return self.entries[name]

    def _place(self, name: str) -> _Place:
        # Looked up once a tensor: what is asked for each range of it adds up.
        entry = self._entry(name)
        reads = None
        if name not in self._loaded:
            with self._lock:
                if entry.file not in self._reads:
                    self._reads[entry.file] = opened(entry.file)
                reads = self._reads[entry.file]
        place = self._places[name] = _Place(reads, entry.start, torch_dtype(entry.dtype))
        return place

    def _pages(self, path: Path) -> Pages:
        pages = self._maps.get(path)
        if pages is None:
            with self._lock:
                pages = self._maps.get(path)
                if pages is None:
                    try:
                        pages = self._maps[path] = Pages(path)
                    except (OSError, ValueError) as problem:
                        raise CheckpointError(
                            f"{path} cannot be read any more ({problem}); is it being replaced?"
                        ) from problem
        return pages


def open_checkpoint(
    name: str | Path, *, allow_pickle: bool = False, revision: str | None = None
) -> Checkpoint:
    """Open weights by a folder, a .safetensors file, a zoo name, or a hub id; nothing but headers is read.

    Args:
        name: "zoo:NAME", a path, or a hub id; only for the last is the network asked.
        allow_pickle: also read .bin files, through torch's restricted unpickler; they are files of torch's own that
            can hold more than numbers.
        revision: branch, tag or commit of a hub id.

    Returns:
        The checkpoint.

    Raises:
        CheckpointError: nothing is there, it is an adapter, files are missing, cut short, or do not belong together,
            or it is pickled and that was not allowed.

    Example:
        >>> open_checkpoint("zoo:llama-1m").entries["model.norm.weight"].shape
        (128,)
    """
    place = locate(str(name), allow_pickle=allow_pickle, revision=revision)
    if place.is_file():
        return _file(str(name), place, allow_pickle)
    single, index = place / SINGLE, place / INDEX
    if index.is_file():
        weight_map = read_index(index)
        if single.is_file() and SINGLE not in weight_map.values():
            raise CheckpointError(
                f"{place} holds both {SINGLE} and the shards of {INDEX}, of which one is older; remove the wrong one."
            )
        return Checkpoint(str(name), place, read_shards(place, weight_map, str(index)))
    if single.is_file():
        return Checkpoint(str(name), place, read_header(single))
    pickles = pickles_of(place)
    if pickles:
        entries, tensors = read_pickles(str(name), pickles, allowed=allow_pickle)
        return Checkpoint(str(name), place, entries, loaded=tensors)
    if (place / "adapter_config.json").is_file():
        raise CheckpointError(f"{name} is a LoRA without its model; write it as BASE+{name}.")
    others = sorted(place.glob("*.safetensors"))
    if len(others) == 1:
        return Checkpoint(str(name), place, read_header(others[0]))
    if others:
        raise CheckpointError(
            f"{name} holds {len(others)} weight files ({others[0].name}, …) and no {INDEX} that says what belongs "
            "together; fetch the index, or name one file."
        )
    raise CheckpointError(f"{name} holds no weights; there should be {SINGLE}, or {INDEX} and its shards.")


def _file(name: str, place: Path, allow_pickle: bool) -> Checkpoint:
    if place.suffix == ".safetensors":
        return Checkpoint(name, place.parent, read_header(place))
    if place.suffix in ENDINGS:
        entries, tensors = read_pickles(name, [place], allowed=allow_pickle)
        return Checkpoint(name, place.parent, entries, loaded=tensors)
    raise CheckpointError(f"{name} is no weight file; name a folder, a .safetensors file, or a hub id.")


def _config(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise CheckpointError(f"{path} is no JSON ({problem}); fetch it again.") from problem
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} is no config, but a {type(found).__name__}; fetch it again.")
    return found
