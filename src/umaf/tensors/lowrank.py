"""The best thin factors of a matrix, as it stands or weighted by the activations it meets."""

from __future__ import annotations

import torch
from torch import Tensor

from umaf.errors import NumericalError


def truncate(delta: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Write a matrix as a product of two thin ones, as closely as the rank allows.

    Args:
        delta: `[out, in]`.
        rank: at least 1; more than the matrix has is filled with zeros.

    Returns:
        A `[rank, in]` and B `[out, rank]`; `B @ A` is the closest matrix of that rank in squared
        error, and A and B share the singular values evenly.

    Raises:
        NumericalError: a rank below 1, or values that are not finite.

    Source: Eckart and Young, Psychometrika 1936.

    Example:
        >>> import torch
        >>> a, b = truncate(torch.ones(3, 2), 1)
        >>> bool(torch.allclose(b @ a, torch.ones(3, 2), atol=1e-6))
        True
    """
    _check(delta, rank)
    left, values, right = torch.linalg.svd(delta, full_matrices=False)
    return _factors(left, values, right, rank)


def truncate_weighted(
    delta: Tensor, moment: Tensor, rank: int, *, damping: float = 1e-4
) -> tuple[Tensor, Tensor]:
    """Write a matrix as two thin ones, close where the activations are.

    Minimises the mean of |(delta - B A) x|^2 over the inputs x, known by their second moment C:
    with S = C^(1/2), the plain truncation of `delta @ S` gives B and A S.

    Args:
        delta: `[out, in]`.
        moment: `[in, in]`, the mean of x x^T over the inputs; symmetric, not negative.
        rank: at least 1.
        damping: share of the mean eigenvalue of `moment` added to each, so that directions that no
            input uses keep a finite inverse; above 0.

    Returns:
        A `[rank, in]` and B `[out, rank]`.

    Raises:
        NumericalError: shapes that do not fit, a rank below 1, or values that are not finite.

    Source: Yuan et al., ASVD, 2023; Wang et al., SVD-LLM, ICLR 2025, section 3.1.

    Example:
        >>> import torch
        >>> a, b = truncate_weighted(torch.diag(torch.tensor([3.0, 1.0])), torch.eye(2), 2)
        >>> [round(value, 4) for value in (b @ a).diagonal().tolist()]
        [3.0, 1.0]
    """
    _check(delta, rank)
    width = delta.shape[1]
    if tuple(moment.shape) != (width, width) or not torch.isfinite(moment).all():
        raise NumericalError(
            f"a matrix {list(delta.shape)} needs a finite second moment [{width}, {width}], got "
            f"{list(moment.shape)}; take it from the inputs of the same layer."
        )
    values, vectors = torch.linalg.eigh(moment.to(delta.dtype))
    values = values.clamp_min(0)
    mean = float(values.mean())
    values = values + (damping * mean if mean > 0 else 1.0)
    root = (vectors * values.sqrt()) @ vectors.T
    inverse = (vectors / values.sqrt()) @ vectors.T
    a, b = truncate(delta @ root, rank)
    return a @ inverse, b


def _check(delta: Tensor, rank: int) -> None:
    if delta.ndim != 2 or rank < 1:
        raise NumericalError(
            f"a truncation needs a matrix [out, in] and a rank of 1 or more, got "
            f"{list(delta.shape)} and rank {rank}."
        )
    if not torch.isfinite(delta).all():
        raise NumericalError(
            "a matrix to be truncated holds NaN or infinite values; look for overflow in what made it."
        )


def _factors(left: Tensor, values: Tensor, right: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    kept = min(rank, values.shape[0])
    root = values[:kept].sqrt()
    a = left.new_zeros(rank, right.shape[1])
    b = left.new_zeros(left.shape[0], rank)
    a[:kept] = root[:, None] * right[:kept]
    b[:, :kept] = left[:, :kept] * root
    return a, b
