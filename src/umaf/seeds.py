"""Seeds from names, so that the order of work, the number of workers and the device cannot change a result."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(seed: int, *names: object) -> int:
    """Derive a seed for one piece of work from the run's seed and the names of that piece.

    Args:
        seed: the run's seed.
        names: what the seed is for: a stage, a tensor, a task, a number.

    Returns:
        A number in [0, 2**63), the same in every process and on every machine.

    Example:
        >>> derive(0, "solve", "layer.1") == derive(0, "solve", "layer.1") != derive(1, "solve", "layer.1")
        True
    """
    text = repr((int(seed), *map(str, names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: object) -> torch.Generator:
    """Make a torch generator on the CPU, seeded by `derive`.

    Example:
        >>> generator(0, "noise").initial_seed() == derive(0, "noise")
        True
    """
    import torch

    return torch.Generator().manual_seed(derive(seed, *names))
