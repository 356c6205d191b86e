"""Singular triplets of matrices through the float64 Gram matrix of their shorter side.

A thin singular value decomposition of a wide float32 matrix spends most of its time on the long side. Here only the
short side is decomposed, in float64, so that squaring the singular values costs nothing that float32 data could show:
values down to some 1e-7 of the largest are found, as by a float32 decomposition, at 2 to 6 times its speed on shapes
of feed-forward layers. Where the spectrum is flat enough for that to change nothing, float32 is used instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from umaf.errors import NumericalError

_BLOCK = 256
_LARGE = 128  # short sides from here on may be done in float32
_SQUARE = 1.25  # below this ratio of sides LAPACK is the faster way to all triplets
_HARMLESS = 5e-5  # relative error of what is made of the triplets, against float64
_WEAK = 0.03  # rows below this share of the longest are computed in float64


@dataclass(frozen=True)
class Triplets:
    """Singular triplets, largest first; where the matrix has fewer, values and vectors are zero.

    Attributes:
        left: `[*batch, out, rank]`, orthonormal or zero columns.
        values: `[*batch, rank]`, not negative, falling.
        right: `[*batch, rank, in]`, orthonormal or zero rows.
    """

    left: Tensor
    values: Tensor
    right: Tensor

    def matrix(self) -> Tensor:
        """Multiply out: `[*batch, out, in]`."""
        return self.left * self.values.unsqueeze(-2) @ self.right

    def isometry(self) -> Tensor:
        """Multiply out with every value that is not zero set to one: `[*batch, out, in]`."""
        return self.left @ self.right


def singular_triplets(
    matrix: Tensor, count: int | None = None, *, scale: Tensor | None = None, method: str = "gram"
) -> Triplets:
    """Find the largest singular values of matrices and their vectors.

    A value counts as zero, and gets zero vectors, when it lies below `4 * eps * sqrt(short side)` times the largest:
    what is left of a matrix of low rank after rounding is not taken for directions of its own.

    Args:
        matrix: `[*batch, out, in]`.
        count: how many; None for all that the short side allows.
        scale: `[*batch]`, what zero is measured against instead of the largest value; give the norm of what `matrix`
            was computed from where most of that cancelled.
        method: "gram" (eigenvectors of the Gram matrix; all triplets of large matrices that are nearly square come
            from LAPACK all the same, which is faster there) or "svd" (LAPACK's thin decomposition always).

    Returns:
        The triplets, in the dtype of `matrix`. The sign of a pair of vectors is arbitrary.

    Raises:
        NumericalError: no matrix, or values that are not finite.

    Example:
        >>> import torch
        >>> found = singular_triplets(torch.diag(torch.tensor([1.0, 3.0, 0.0])), 2)
        >>> found.values.round(decimals=4)
        tensor([3., 1.])
    """
    if matrix.ndim < 2:
        raise NumericalError(f"singular values need a matrix [out, in], got the shape {list(matrix.shape)}.")
    short = min(matrix.shape[-2:])
    count = short if count is None else min(count, short)
    square = short >= _LARGE and count == short and max(matrix.shape[-2:]) < _SQUARE * short
    find = _from_svd if method == "svd" or square else _from_gram
    if short == matrix.shape[-2]:
        found = find(matrix, count)
    else:
        turned = find(matrix.mT, count)
        found = Triplets(turned.right.mT, turned.values, turned.left.mT)
    return _without_zeros(found, threshold(matrix, found.values if scale is None else scale.unsqueeze(-1)))


def threshold(matrix: Tensor, values: Tensor) -> Tensor:
    """Give the size below which a singular value of a matrix counts as zero.

    Args:
        matrix: `[*batch, out, in]`; its shape and dtype matter.
        values: `[*batch, rank]`; the largest matters.

    Returns:
        `[*batch, 1]`.

    Example:
        >>> import torch
        >>> threshold(torch.zeros(4, 9), torch.ones(1)) < 1e-5
        tensor([True])
    """
    eps = torch.finfo(matrix.dtype).eps
    if values.shape[-1] == 0:
        return values.new_zeros(*values.shape[:-1], 1)
    return 4 * eps * min(matrix.shape[-2:]) ** 0.5 * values.amax(-1, keepdim=True)


def gram(matrix: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """Multiply matrices by their own transposes; only blocks on and above the diagonal are computed.

    Args:
        matrix: `[*batch, out, in]`.
        dtype: in which to multiply.

    Returns:
        `[*batch, out, out]` in that dtype.

    Example:
        >>> import torch
        >>> gram(torch.tensor([[1.0, 2.0], [0.0, 1.0]])).tolist()
        [[5.0, 2.0], [2.0, 1.0]]
    """
    rows = matrix.shape[-2]
    result = matrix.new_empty(*matrix.shape[:-1], rows, dtype=dtype)
    matrix = matrix.to(dtype)
    for start in range(0, rows, _BLOCK):
        block = slice(start, start + _BLOCK)
        stripe = matrix[..., block, :] @ matrix[..., start:, :].mT
        result[..., block, start:] = stripe
        result[..., start:, block] = stripe.mT
    return result


def _from_gram(matrix: Tensor, count: int) -> Triplets:
    """Decompose matrices that are not taller than wide."""
    if matrix.ndim == 2 or matrix.shape[-2] < _LARGE:
        return _decomposed(matrix, count)
    # One by one: a batch gains nothing here, and each matrix chooses its precision.
    found = [_decomposed(one, count) for one in matrix.reshape(-1, *matrix.shape[-2:])]
    shape = matrix.shape[:-2]
    parts = ([getattr(one, name) for one in found] for name in ("left", "values", "right"))
    return Triplets(*(torch.stack(part).reshape(*shape, *part[0].shape) for part in parts))


def _decomposed(matrix: Tensor, count: int) -> Triplets:
    vectors = _quick(matrix, count) if matrix.shape[-2] >= _LARGE else None
    if vectors is None:
        vectors = _eigen(gram(matrix), count)[1]
    rounded = vectors.to(matrix.dtype)
    rows = rounded.mT @ matrix
    lengths = torch.linalg.vector_norm(rows, dim=-1)
    if vectors.dtype == torch.float64:
        weak = int((lengths < _WEAK * lengths.amax(-1, keepdim=True)).sum(-1).amax()) if count else 0
        if (
            weak
        ):  # a short row of a float32 product is mostly rounding: the lengths fall, so these are the last
            rows[..., -weak:, :] = (vectors[..., -weak:].mT @ matrix.double()).to(matrix.dtype)
            lengths[..., -weak:] = torch.linalg.vector_norm(rows[..., -weak:, :], dim=-1)
    directions = rows / lengths.clamp_min(torch.finfo(rows.dtype).tiny).unsqueeze(-1)
    return Triplets(rounded, lengths, directions)


def _quick(matrix: Tensor, count: int) -> Tensor | None:
    """Find the vectors in float32 where that is as good as a float32 decomposition; None where it is not.

    Rounding a Gram matrix moves a vector by eps * l_1 over the distance of its eigenvalue to the next. That is
    harmless while the last eigenvalue that is wanted, l_count, is not much smaller than the first.
    """
    short = matrix.shape[-2]
    if matrix.dtype != torch.float32 or count == 0:
        return None
    spread = short / count**0.5 if count < short else 4.0
    most = 2 * _HARMLESS / (torch.finfo(torch.float32).eps * spread)
    total = float(matrix.square().sum())
    if (
        not 0 < total < float("inf") or _largest(matrix) * count > most * total
    ):  # l_count is at most total / count
        return None
    values, vectors = _eigen(gram(matrix, torch.float32), count)
    return vectors if float(values[-1]) * most > float(values[0]) else None


def _largest(matrix: Tensor) -> float:
    """Bound the largest eigenvalue of the Gram matrix from below, by a few power steps."""
    vector = matrix[int(torch.linalg.vector_norm(matrix, dim=1).argmax())]
    for _ in range(4):
        image = matrix @ (vector / torch.linalg.vector_norm(vector))
        vector = image @ matrix
    return float(image.square().sum())


def _from_svd(matrix: Tensor, count: int) -> Triplets:
    _check(matrix)
    try:
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    except torch.linalg.LinAlgError:  # type: ignore[reportPrivateImportUsage]
        left, values, right = _stubborn(
            matrix, lambda linalg, one: linalg.svd(one, full_matrices=False, lapack_driver="gesvd")
        )
    return Triplets(left[..., :count], values[..., :count], right[..., :count, :])


def _eigen(symmetric: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Give the largest eigenvalues, falling, and their vectors."""
    _check(symmetric)
    first = symmetric.shape[-1] - count
    try:
        values, vectors = torch.linalg.eigh(symmetric)
    except torch.linalg.LinAlgError:  # type: ignore[reportPrivateImportUsage]
        values, vectors = _stubborn(symmetric, lambda linalg, one: linalg.eigh(one, driver="ev"))
    return values[..., first:].flip(-1), vectors[..., first:].flip(-1)


def _stubborn(
    matrices: Tensor, decompose: Callable[[Any, np.ndarray], tuple[np.ndarray, ...]]
) -> list[Tensor]:
    """Decompose one by one, in float64, what divide and conquer gave up on: matrices of low rank can be such.

    Args:
        matrices: `[*batch, out, in]`.
        decompose: slower, by QR iterations, which converge; it is given `scipy.linalg` and a matrix.

    Returns:
        Its parts, `[*batch, …]` each, in the dtype of the matrices.
    """
    from scipy import linalg  # a quarter of a second that no other merge shall wait for

    found = [decompose(linalg, one.double().numpy()) for one in matrices.reshape(-1, *matrices.shape[-2:])]
    stacked = [torch.from_numpy(np.stack(part)).to(matrices.dtype) for part in zip(*found, strict=True)]
    return [part.reshape(*matrices.shape[:-2], *part.shape[1:]) for part in stacked]


def _check(matrix: Tensor) -> None:
    if not torch.isfinite(matrix).all():
        raise NumericalError(
            "a matrix to be decomposed holds NaN or infinite values, or values whose squares overflow; look for "
            "overflow in what made it."
        )


def _without_zeros(found: Triplets, smallest: Tensor) -> Triplets:
    kept = (found.values > smallest) & (found.values > 0)
    if bool(kept.all()):
        return found
    zero = found.values.new_zeros(())
    return Triplets(
        torch.where(kept.unsqueeze(-2), found.left, zero),
        torch.where(kept, found.values, zero),
        torch.where(kept.unsqueeze(-1), found.right, zero),
    )
