"""One safetensors file with a few lines about it, written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from umaf.errors import OutputError


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> Path:
    """Write tensors and their metadata to a file that does not exist.

    Args:
        path: where; missing folders are made.
        tensors: tensors by name.
        about: metadata, text by name.

    Returns:
        The path.

    Raises:
        OutputError: something is there already, or it cannot be written.
    """
    target = Path(path)
    if os.path.lexists(target):
        raise OutputError(f"The output {target} already exists; name another file, or remove it first.")
    content = save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata=dict(about))
    draft = target.absolute().parent / f".{target.name}.{secrets.token_hex(4)}.part"
    try:
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        draft.replace(target)
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise OutputError(
            f"The output {target} cannot be written ({reason}); name a place you may write to."
        ) from problem
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    return target


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata; both are empty where the file is missing or not safetensors.

    Args:
        path: any path.

    Returns:
        Tensors by name, metadata by name.
    """
    try:
        with safe_open(Path(path), framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # not a mapping
            return tensors, stored.metadata() or {}
    except (SafetensorError, OSError):
        return {}, {}


def weights_version(kind: str, net: nn.Module, *, extractor: str) -> str:
    """Name a small trained network by its kind and a hash of every weight and of the extractor it reads."""
    digest = hashlib.sha256(extractor.encode())
    for name, weight in sorted(net.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.cpu().contiguous().numpy().tobytes())
    return f"{kind}-{digest.hexdigest()[:12]}"
