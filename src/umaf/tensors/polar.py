"""The orthogonal part of a matrix."""

from __future__ import annotations

from torch import Tensor

from umaf.tensors.svd import singular_triplets


def polar(matrix: Tensor, *, scale: Tensor | None = None, method: str = "gram") -> Tensor:
    """Replace every singular value of a matrix that is not zero by one.

    For a matrix of full rank this is the closest one with orthonormal columns (or rows); directions that the matrix
    does not have stay zero, so the result turns with the matrix.

    Args:
        matrix: `[*batch, out, in]`.
        scale: `[*batch]`, what zero is measured against; the largest singular value when None.
        method: as in :func:`umaf.tensors.svd.singular_triplets`.

    Returns:
        The same shape and dtype.

    Source: Higham, Computing the polar decomposition, 1986.

    Example:
        >>> import torch
        >>> polar(torch.tensor([[0.0, -2.0], [0.5, 0.0]])).round(decimals=4).tolist()
        [[0.0, -1.0], [1.0, 0.0]]
    """
    return singular_triplets(matrix, scale=scale, method=method).isometry()
