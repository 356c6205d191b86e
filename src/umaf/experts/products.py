"""Products with a matrix that stays: on a CPU by oneDNN, from a copy of the matrix laid out for it once.

The matrix library behind torch's linear layers is not the fastest one on every processor; on an AMD EPYC with AVX-512
the same product by oneDNN takes half the time. The copy costs as much memory as the matrix, so only matrices of
middling size get one: small ones gain nothing, and of large ones the memory is worth more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

LEAST, MOST = 2**14, 2**20
"""Numbers in a matrix that gets a copy."""


def laid_out(weight: Tensor) -> Tensor | None:
    """Copy a matrix into oneDNN's own layout.

    Args:
        weight: ``[out, in]``.

    Returns:
        What `product` takes beside it; None where there is nothing to gain, or oneDNN has no such type or device.

    Example:
        >>> laid_out(torch.ones(2, 3)) is None
        True
    """
    fits = weight.dim() == 2 and LEAST <= weight.numel() <= MOST and not weight.requires_grad
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    if not (fits and there and weight.device.type == "cpu" and weight.dtype == torch.float32):
        return None
    with torch.inference_mode(False), torch.no_grad():
        return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())


def product(
    weight: Tensor, laid: Tensor | None = None, bias: Tensor | None = None
) -> Callable[[Tensor], Tensor]:
    """Give the function x -> x weight.T + bias.

    Args:
        weight: ``[out, in]``.
        laid: what `laid_out` gave for it; the plain product when None.
        bias: ``[out]``.

    Example:
        >>> product(torch.tensor([[1.0, 2.0]]))(torch.tensor([[3.0, 4.0]]))
        tensor([[11.]])
    """

    def plain(x: Tensor) -> Tensor:
        return functional.linear(x, weight, bias)

    if laid is None:
        return plain
    fast: Any = torch.ops.mkldnn._linear_pointwise

    def quick(x: Tensor) -> Tensor:
        # It has no gradient, and autocast and other types do not reach it.
        if (
            x.dtype != torch.float32
            or torch.is_autocast_enabled("cpu")
            or (torch.is_grad_enabled() and x.requires_grad)
        ):
            return plain(x)
        return fast(x, laid, bias, "none", [], "")

    return quick
