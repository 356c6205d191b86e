"""Which weights these are, cheaply: a hash of what headers say and of samples of every tensor."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from umaf.checkpoints.checkpoint import Checkpoint
from umaf.checkpoints.headers import Entry
from umaf.errors import CheckpointError

_SAMPLES, _SAMPLE = 4, 256


def identity(checkpoint: Checkpoint) -> str:
    """Hash names, shapes and dtypes, and 4 samples of 256 bytes of every tensor, its ends among them.

    How tensors are spread over files does not count. It tells other weights from these, one changed layer included,
    but a change of single numbers between the samples goes unseen: the prefix says so.

    Returns:
        "sampled-sha256:" and 64 hex digits.

    Raises:
        CheckpointError: a file was taken away or cut short since it was opened.

    Example:
        >>> from umaf.checkpoints import open_checkpoint
        >>> identity(open_checkpoint("zoo:llama-1m"))[:15]
        'sampled-sha256:'
    """
    entries = sorted(checkpoint.entries.values(), key=lambda entry: entry.name)
    found = hashlib.sha256(json.dumps([(one.name, one.dtype, one.shape) for one in entries]).encode())
    files: dict[Path, int] = {}
    try:
        for entry in entries:
            if checkpoint.is_loaded(entry.name):
                flat = checkpoint.flat(entry.name).view(torch.uint8)
                for start, size in _samples(entry):
                    found.update(flat[start : start + size].numpy().tobytes())
                continue
            if entry.file not in files:
                files[entry.file] = os.open(entry.file, os.O_RDONLY)
            for start, size in _samples(entry):
                sample = os.pread(files[entry.file], size, entry.start + start)
                if len(sample) != size:
                    raise CheckpointError(f"{entry.file} was cut short within {entry.name}; fetch it again.")
                found.update(sample)
    except OSError as problem:
        raise CheckpointError(
            f"{problem.filename or checkpoint.name} cannot be read any more ({problem.strerror})."
        ) from problem
    finally:
        for file in files.values():
            os.close(file)
    return f"sampled-sha256:{found.hexdigest()}"


def _samples(entry: Entry) -> Iterator[tuple[int, int]]:
    """Give starts, from the tensor's first byte on, and sizes."""
    if entry.size <= _SAMPLES * _SAMPLE:
        yield 0, entry.size
        return
    for number in range(_SAMPLES):
        yield (entry.size - _SAMPLE) * number // (_SAMPLES - 1), _SAMPLE
