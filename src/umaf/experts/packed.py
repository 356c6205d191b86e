"""How multipliers lie in a file: without loss, and small where they allow it.

Per module ``<name>`` holds the numbers: float32, or int8 beside ``<name>.step`` when every z is 1 plus a whole number
of steps, a power of two. Where more than half of z is 1, only the others are there, at the places ``<name>.kept``
says of a tensor of the shape ``<name>.shape``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

MOST = 127
"""Steps to either side of 1 that eight bits hold."""


def step_of(change: Tensor) -> float:
    """Give the smallest power of two of which 127 reach the largest change; 0 where there is none.

    Example:
        >>> step_of(torch.tensor([0.5, -0.9]))
        0.0078125
    """
    largest = float(change.abs().max()) if change.numel() else 0.0
    return 2.0 ** math.ceil(math.log2(largest / MOST)) if largest > 0 else 0.0


def pack(z: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn multipliers into the tensors of a file.

    Args:
        z: by module, finite.

    Returns:
        Tensors by name, from which `unpack` gives the same bits.

    Example:
        >>> sparse = torch.ones(9)
        >>> sparse[4] = 1.25
        >>> packed = pack({"m": sparse})
        >>> packed["m"].dtype, packed["m.kept"].tolist()
        (torch.int8, [4])
        >>> torch.equal(unpack(packed)["m"], sparse)
        True
    """
    tensors: dict[str, Tensor] = {}
    for name, each in z.items():
        values = each.detach().to("cpu", torch.float32).contiguous()
        if (values != 1).sum() * 2 < values.numel():
            kept = (values.reshape(-1) != 1).nonzero().squeeze(1)
            tensors[f"{name}.kept"] = kept.to(torch.int32)
            tensors[f"{name}.shape"] = torch.tensor(values.shape, dtype=torch.int32)
            values = values.reshape(-1)[kept]
        change = values.double() - 1
        step = step_of(change)
        steps = (change / step if step else change).round()
        # A z too near to 0 is lost in z - 1, so what counts is what would be read back.
        if step and torch.equal((1 + steps * step).float(), values):
            tensors[name], tensors[f"{name}.step"] = steps.to(torch.int8), torch.tensor([step])
        else:
            tensors[name] = values
    return tensors


def unpack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give multipliers back, ``[.., rank]`` float32; the inverse of `pack`.

    Raises:
        KeyError, RuntimeError, IndexError: the tensors do not belong together.
    """
    z: dict[str, Tensor] = {}
    parts = {name for name in tensors if name.endswith((".kept", ".shape", ".step"))}
    for name in tensors.keys() - parts:
        values = tensors[name]
        if values.dtype == torch.int8:
            values = 1 + values.double() * tensors[f"{name}.step"].double()
        values = values.float()
        if f"{name}.kept" in tensors:
            whole = torch.ones(tensors[f"{name}.shape"].tolist())
            whole.reshape(-1)[tensors[f"{name}.kept"].long()] = values
            values = whole
        z[name] = values
    return z
