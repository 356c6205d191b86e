"""One door to weights on disk: headers are read and checked at once, weights lie in memory maps until they are used."""

from __future__ import annotations

import json
import mmap
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from umaf.checkpoints.dtypes import dtype_name, torch_dtype
from umaf.checkpoints.headers import Entry, read_header, read_index, read_shards
from umaf.checkpoints.locate import locate
from umaf.errors import CheckpointError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLES = ("pytorch_model.bin.index.json", "pytorch_model.bin")

with warnings.catch_warnings():
    # torch warns, once a process, that a read-only map cannot be written to. Nothing here writes to one.
    warnings.simplefilter("ignore")
    torch.frombuffer(b"\0", dtype=torch.uint8)


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
        self._maps: dict[Path, mmap.mmap] = {}
        self._lock = threading.Lock()

    def flat(self, name: str) -> Tensor:
        """Give a tensor's numbers, `[numel]`, in the stored dtype, where they lie; they must not be written to.

        Raises:
            CheckpointError: no such tensor.
        """
        entry = self._entry(name)
        if name in self._loaded:
            return self._loaded[name].reshape(-1)
        dtype = torch_dtype(entry.dtype)
        if not entry.size:
            return torch.empty(0, dtype=dtype)
        return torch.frombuffer(self._map(entry.file), dtype=dtype, count=entry.numel, offset=entry.start)

    def read(self, name: str) -> Tensor:
        """Give a tensor in its shape and stored dtype, where it lies; it must not be written to.

        Raises:
            CheckpointError: no such tensor.
        """
        return self.flat(name).reshape(self._entry(name).shape)

    def release(self, name: str | None = None) -> None:
        """Tell the kernel that the pages of a tensor (of all, without a name) need not stay in this process.

        Tensors that were given stay valid; their pages come back from the disk's cache when they are touched.
        """
        for entry in self.entries.values() if name is None else (self._entry(name),):
            pages = self._maps.get(entry.file)
            if pages is not None and entry.size:
                release(pages, entry.start, entry.size)

    def close(self) -> None:
        """Let go of the files; those that tensors still point into are closed with the last of these."""
        with self._lock:
            self._maps.clear()

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
            raise CheckpointError(f"{self.name} has no tensor {name}; it has {len(self.entries)} others.")
        return self.entries[name]

    def _map(self, path: Path) -> mmap.mmap:
        pages = self._maps.get(path)
        if pages is None:
            with self._lock:
                pages = self._maps.get(path)
                if pages is None:
                    with path.open("rb") as file:
                        pages = self._maps[path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return pages


def release(pages: mmap.mmap, start: int, size: int) -> None:
    """Unmap the pages of a range from this process; what is written to them stays with the file."""
    if hasattr(mmap, "MADV_DONTNEED"):
        first = start - start % mmap.PAGESIZE
        pages.madvise(mmap.MADV_DONTNEED, first, min(start + size, len(pages)) - first)


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
        if place.suffix == ".safetensors":
            return Checkpoint(str(name), place.parent, read_header(place))
        return _unpickled(str(name), place.parent, [place], allow_pickle)
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
    for file in _PICKLES:
        if (place / file).is_file():
            shards = sorted(set(read_index(place / file).values())) if file.endswith(".json") else [file]
            return _unpickled(str(name), place, [place / shard for shard in shards], allow_pickle)
    if (place / "adapter_config.json").is_file():
        raise CheckpointError(f"{name} is a LoRA without its model; write it as BASE+{name}.")
    others = sorted(place.glob("*.safetensors"))
    if len(others) == 1:
        return Checkpoint(str(name), place, read_header(others[0]))
    raise CheckpointError(f"{name} holds no weights; there should be {SINGLE}, or {INDEX} and its shards.")


def _unpickled(name: str, folder: Path, files: list[Path], allowed: bool) -> Checkpoint:
    if not allowed:
        raise CheckpointError(
            f"{name} is stored as pickle ({files[0].name}), which can run code; convert it to safetensors, or allow it "
            "with --allow-pickle if you trust where it comes from."
        )
    tensors: dict[str, Tensor] = {}
    entries: dict[str, Entry] = {}
    for file in files:
        try:
            found = torch.load(file, weights_only=True, mmap=True, map_location="cpu")
        except Exception as problem:  # torch raises many kinds, for junk and for code alike
            raise CheckpointError(
                f"{file} cannot be read as weights alone ({type(problem).__name__}); it is broken or holds code."
            ) from problem
        if not isinstance(found, Mapping) or not all(isinstance(one, Tensor) for one in found.values()):
            raise CheckpointError(
                f"{file} holds something besides tensors by name; save its state dict instead."
            )
        for key, tensor in found.items():
            if key in tensors:
                raise CheckpointError(
                    f"{file} holds {key}, and so does {entries[key].file}; fetch both again."
                )
            tensors[key] = tensor.detach().contiguous()
            size = tensor.numel() * tensor.element_size()
            entries[key] = Entry(key, dtype_name(tensor.dtype), tuple(tensor.shape), file, 0, size)
    return Checkpoint(name, folder, entries, loaded=tensors)


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
