"""Which weights these are, cheaply: a hash of what headers say and of samples of the data."""

from __future__ import annotations

import hashlib
import json

from umaf.checkpoints.checkpoint import Checkpoint

_BLOCKS, _BLOCK = 32, 4096


def identity(checkpoint: Checkpoint) -> str:
    """Hash names, shapes, dtypes, and 32 blocks of 4 KiB spread over every file.

    It tells other weights from these, but a change between the samples goes unseen: the prefix says so.

    Returns:
        "sampled-sha256:" and 64 hex digits.

    Example:
        >>> from umaf.checkpoints import open_checkpoint
        >>> identity(open_checkpoint("zoo:llama-1m"))[:15]
        'sampled-sha256:'
    """
    found = hashlib.sha256()
    listed = sorted((entry.name, entry.dtype, entry.shape) for entry in checkpoint.entries.values())
    found.update(json.dumps(listed).encode())
    for path in sorted(checkpoint.files):
        size = path.stat().st_size
        found.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            for number in range(_BLOCKS):
                file.seek(max(0, (size - _BLOCK) * number // (_BLOCKS - 1)))
                found.update(file.read(_BLOCK))
    return f"sampled-sha256:{found.hexdigest()}"
