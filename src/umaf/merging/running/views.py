"""A stored tensor as the matrices a method wants, and back: views only, nothing is copied on the way out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from umaf.merging.planning.jobs import Parts


def pieces(tensor: Tensor, parts: Parts) -> list[Tensor]:
    """Show a stored tensor as matrices.

    Args:
        tensor: `[..., *experts, out, in]`, or `[..., *experts, in, out]` if `parts.transposed`; leading axes (models)
            stay as they are.
        parts: how it is fused.

    Returns:
        For each fused matrix `[..., *experts, out, in]`.

    Example:
        >>> [piece.shape for piece in pieces(torch.zeros(3, 8, 24), Parts(True, transposed=True, sizes=(8, 8, 8)))]
        [torch.Size([3, 8, 8]), torch.Size([3, 8, 8]), torch.Size([3, 8, 8])]
    """
    shown = tensor.mT if parts.transposed else tensor
    if not parts.sizes:
        return [shown]
    if parts.groups == 1:
        return list(shown.split(list(parts.sizes), dim=-2))
    *leading, out, width = shown.shape
    grouped = shown.reshape(*leading, parts.groups, out // parts.groups, width)
    return [
        piece.reshape(*leading, parts.groups * piece.shape[-2], width)
        for piece in grouped.split(list(parts.sizes), dim=-2)
    ]


def join(matrices: Sequence[Tensor], parts: Parts) -> Tensor:
    """Put matrices together again as they are stored.

    Args:
        matrices: as from `pieces`; leading axes may be fewer (one result instead of several models).
        parts: how they are fused.

    Example:
        >>> stored = torch.arange(12.0).reshape(6, 2)
        >>> parts = Parts(True, sizes=(1, 2), groups=2)
        >>> bool((join(pieces(stored, parts), parts) == stored).all())
        True
    """
    if not parts.sizes:
        whole = matrices[0]
    elif parts.groups == 1:
        whole = torch.cat(list(matrices), dim=-2)
    else:
        *leading, _, width = matrices[0].shape
        grouped = [
            piece.reshape(*leading, parts.groups, size, width)
            for piece, size in zip(matrices, parts.sizes, strict=True)
        ]
        whole = torch.cat(grouped, dim=-2).reshape(*leading, -1, width)
    return whole.mT if parts.transposed else whole
