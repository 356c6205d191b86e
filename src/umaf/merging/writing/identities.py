"""What a merge was made of, as hashes: of a checkpoint by samples of its files, of adapters by all they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from umaf.checkpoints import identity
from umaf.merging.planning.jobs import Opened


def identity_of(opened: Opened) -> str:
    """Identify a model with its adapters.

    Args:
        opened: of a plan.

    Returns:
        64 hexadecimal digits of the checkpoint, and "+" and 64 more for each adapter.
    """
    return "+".join([identity(opened.checkpoint), *(digest_of(one.changes) for one in opened.loras)])


def digest_of(value: Any) -> str:
    """Hash tensors, numbers and words, and dataclasses, mappings and lists of them; 64 hexadecimal digits.

    Example:
        >>> digest_of({"w": torch.zeros(2)}) == digest_of({"w": torch.zeros(2)})
        True
        >>> digest_of({"w": torch.zeros(2)}) == digest_of({"w": torch.ones(2)})
        False
    """
    found = hashlib.sha256()
    _feed(found, value)
    return found.hexdigest()


def _feed(found: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        found.update(repr((str(value.dtype), tuple(value.shape))).encode())
        found.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
    elif is_dataclass(value):
        found.update(type(value).__name__.encode())
        for one in fields(value):
            _feed(found, getattr(value, one.name))
    elif isinstance(value, Mapping):
        for key in value:
            found.update(repr(key).encode())
            _feed(found, value[key])
    elif isinstance(value, (list, tuple)):
        found.update(str(len(value)).encode())
        for one in value:
            _feed(found, one)
    else:
        found.update(repr(value).encode())
