"""Weights in torch's own files, which are pickles: read by the restricted unpickler, and only where that is allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from umaf.checkpoints.dtypes import dtype_name
from umaf.checkpoints.headers import Entry, read_index
from umaf.errors import CheckpointError

ENDINGS = (".bin", ".pt", ".pth")
_INDEX, _SINGLE = "pytorch_model.bin.index.json", "pytorch_model.bin"


def pickles_of(folder: Path) -> list[Path]:
    """List the pickled weight files of a folder, as transformers names them; none where there are none.

    Raises:
        CheckpointError: the index is broken, or names a file that is not there.
    """
    if (folder / _INDEX).is_file():
        files = [folder / file for file in sorted(set(read_index(folder / _INDEX).values()))]
        absent = next((file for file in files if file.parent != folder or not file.is_file()), None)
        if absent is not None:
            raise CheckpointError(f"{absent} is missing, and {_INDEX} names it; fetch it again.")
        return files
    return [folder / _SINGLE] if (folder / _SINGLE).is_file() else []


def read_pickles(
    name: str, files: Sequence[Path], *, allowed: bool
) -> tuple[dict[str, Entry], dict[str, Tensor]]:
    """Load tensors by name from torch's files.

    Args:
        name: of the checkpoint, for messages.
        files: to read.
        allowed: the user said that pickles may be read.

    Returns:
        What is there, and the tensors, which lie in memory maps where the files allow it.

    Raises:
        CheckpointError: it is not allowed, or a file is broken or holds anything but tensors.
    """
    if not allowed:
        raise CheckpointError(
            f"{name} is stored as pickle ({files[0].name}), which can run code; convert it to safetensors, or allow it "
            "with --allow-pickle if you trust where it comes from."
        )
    entries: dict[str, Entry] = {}
    tensors: dict[str, Tensor] = {}
    for file in files:
        found = _load(file)
        if not isinstance(found, Mapping) or not all(isinstance(one, Tensor) for one in found.values()):
            raise CheckpointError(
                f"{file} holds something besides tensors by name; save its state dict instead."
            )
        for key, tensor in found.items():
            if key in entries:
                raise CheckpointError(
                    f"{file} holds {key}, and so does {entries[key].file}; fetch both again."
                )
            entries[key] = _entry(file, str(key), tensor)
            tensors[key] = tensor.detach().contiguous()
    return entries, tensors


def _load(file: Path) -> Any:
    try:
        try:
            return torch.load(file, weights_only=True, mmap=True, map_location="cpu")
        except RuntimeError:  # written by an old torch, whose files cannot be mapped
            return torch.load(file, weights_only=True, map_location="cpu")
    except Exception as problem:  # torch raises many kinds, for junk and for code alike
        raise CheckpointError(
            f"{file} cannot be read as weights alone ({type(problem).__name__}); it is broken or holds code."
        ) from problem


def _entry(file: Path, name: str, tensor: Tensor) -> Entry:
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise CheckpointError(f"{file}: {name} is sparse or quantised; store it as plain numbers.")
    try:
        dtype = dtype_name(tensor.dtype)
    except CheckpointError as problem:
        raise CheckpointError(f"{file}: {name}: {problem}") from problem
    return Entry(name, dtype, tuple(tensor.shape), file, 0, tensor.numel() * tensor.element_size())
