"""Seeds from names, so that the order of work, its number of workers and its device cannot change a result.

Whatever draws random numbers asks for a seed by (run seed, what it is for): two stages never share a stream, and a
stage that is added or left out moves no other. Torch is imported only when a torch generator is asked for.
"""

from __future__ import annotations

import hashlib
import json
import operator
from typing import TYPE_CHECKING, SupportsIndex, cast

if TYPE_CHECKING:
    import torch


def derive(seed: int, *names: object) -> int:
    """Derive a seed in [0, 2**63) from a run's seed and the names of what it is for.

    Args:
        seed: the run's seed; any integer.
        names: strings, numbers, booleans, None, or lists and tuples of them.

    Returns:
        The first 63 bits of the sha256 of the tuple: the same on every machine and Python.

    Raises:
        TypeError: a name that has no fixed written form (an object whose text holds an address).

    Example:
        >>> derive(0, "anchors") == derive(0, "anchors")
        True
        >>> derive(0, "a", "b") == derive(0, "ab")
        False
    """
    text = json.dumps([seed, *names], default=_whole_number, ensure_ascii=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: object) -> torch.Generator:
    """Give a CPU torch generator seeded by `derive`.

    Example:
        >>> generator(0, "mask").initial_seed() == derive(0, "mask")
        True
    """
    import torch

    return torch.Generator().manual_seed(derive(seed, *names))


def _whole_number(value: object) -> int:
    # NumPy's and torch's integers are not Python's, but mean the same.
    try:
        return operator.index(cast("SupportsIndex", value))
    except TypeError:
        raise TypeError(
            f"A seed was asked for by the name {value!r}, which is a {type(value).__name__}; "
            "use strings or numbers, whose written form is the same in every run."
        ) from None
