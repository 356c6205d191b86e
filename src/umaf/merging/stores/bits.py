"""Yes-or-no tensors at one bit an entry."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def pack_bits(mask: Tensor) -> Tensor:
    """Write a mask at one bit an entry.

    Args:
        mask: boolean, any shape.

    Returns:
        `[ceil(n / 8)]`, uint8; the first entry is the highest bit of the first byte, the last byte is filled with 0.

    Example:
        >>> pack_bits(torch.tensor([True, False, True]))
        tensor([160], dtype=torch.uint8)
    """
    return torch.from_numpy(np.packbits(mask.reshape(-1).numpy()))


def unpack_bits(packed: Tensor, shape: Sequence[int]) -> Tensor:
    """Read a mask that `pack_bits` wrote; its shape is not stored and has to be given.

    Example:
        >>> unpack_bits(torch.tensor([160], dtype=torch.uint8), (3,))
        tensor([ True, False,  True])
    """
    count = int(np.prod(shape, dtype=np.int64))
    return torch.from_numpy(np.unpackbits(packed.numpy(), count=count).view(np.bool_)).reshape(tuple(shape))


def count_bits(packed: Tensor) -> int:
    """Count the entries that are set, without unpacking.

    Example:
        >>> count_bits(torch.tensor([160], dtype=torch.uint8))
        2
    """
    return int(_SET[packed.long()].sum())


_SET = torch.tensor([bin(byte).count("1") for byte in range(256)])
