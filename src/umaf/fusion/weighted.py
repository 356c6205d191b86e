"""The weighted average of fingerprints."""

from __future__ import annotations

from torch import Tensor


def weighted(vectors: Tensor, weights: Tensor) -> Tensor:
    """Average vectors.

    The average is as long as its parts agree: equal ones keep their length, unlike ones lose some,
    and opposite ones cancel to 0.

    Args:
        vectors: `[source, 512]` float64.
        weights: `[source]` float64, absolute values summing to 1.

    Returns:
        `[512]`.

    Example:
        >>> import torch
        >>> weighted(torch.eye(2), torch.tensor([0.5, 0.5])).tolist()
        [0.5, 0.5]
    """
    return weights @ vectors
