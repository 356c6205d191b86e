"""The bound on multipliers: what is trained is any number, what is applied lies between 0 and 2.

    z = 1 + tanh(p),     p = 0  <->  z = 1 exactly

The authors' release (Sun et al., 2025, Transformer-squared) has z = sigmoid(p) * sum(s) / sum(s * sigmoid(p)). There
every direction's multiplier depends on every other's, a change common to all of them cannot be expressed, z = 1 is
reached only up to rounding, and whoever mixes has to know which of p and z is stored. Here each direction has its own
number, and experts store z.
"""

from __future__ import annotations

import torch
from torch import Tensor

LOWEST, HIGHEST = 0.0, 2.0


def bounded(p: Tensor) -> Tensor:
    """Turn free parameters into multipliers.

    Smooth, increasing, with slope 1 at zero, so that a step of size t on p changes a singular value by a share of t.

    Args:
        p: any numbers, any shape.

    Returns:
        z of the same shape in (0, 2); rounding reaches the ends beyond |p| of about 9 in float32.

    Example:
        >>> bounded(torch.tensor([0.0, 0.5, -100.0]))
        tensor([1.0000, 1.4621, 0.0000])
    """
    return 1 + torch.tanh(p)


def unbounded(z: Tensor) -> Tensor:
    """Give parameters that `bounded` turns into these multipliers; its inverse.

    Args:
        z: multipliers; those at or beyond the ends are taken as the nearest number inside.

    Returns:
        p of the same shape, finite.

    Example:
        >>> unbounded(torch.tensor([1.0, 1.25]))
        tensor([0.0000, 0.2554])
    """
    edge = 1 - torch.finfo(z.dtype).eps
    return torch.atanh((z - 1).clamp(-edge, edge))
