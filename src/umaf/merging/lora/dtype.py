"""A merged LoRA's numbers in the dtype that the recipe asks for: one rounding, at the end."""

from __future__ import annotations

import torch
from torch import Tensor

from umaf.deltas.adapter import Target
from umaf.deltas.lowrank import LowRank
from umaf.errors import NumericalError


def rounded(target: Target, dtype: str, name: str) -> Target:
    """Round factors and bias of a module.

    Args:
        target: without a magnitude.
        dtype: "float32", "bfloat16" or "float16".
        name: of the module, for messages.

    Raises:
        NumericalError: an entry is beyond the range of the dtype.

    Example:
        >>> one = Target("linear", LowRank(torch.ones(1, 3), torch.ones(2, 1)))
        >>> rounded(one, "bfloat16", "up").delta.a.dtype
        torch.bfloat16
    """
    delta = LowRank(cast(target.delta.a, dtype, name), cast(target.delta.b, dtype, name))
    return Target(target.kind, delta, bias=None if target.bias is None else cast(target.bias, dtype, name))


def cast(tensor: Tensor, dtype: str, name: str) -> Tensor:
    """Round a tensor.

    Raises:
        NumericalError: an entry is beyond the range of the dtype.

    Example:
        >>> cast(torch.ones(1), "float16", "w")
        tensor([1.], dtype=torch.float16)
    """
    small = tensor.to(getattr(torch, dtype))
    if not bool(torch.isfinite(small).all()):
        raise NumericalError(
            f"{name} has entries beyond the range of {dtype}; write it as bfloat16 or float32."
        )
    return small
