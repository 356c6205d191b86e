"""Orthogonal Procrustes: the rotation that carries one cloud of points onto another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from umaf.errors import NumericalError


@dataclass(frozen=True)
class Rotation:
    """A map of points: `scale * x @ matrix`.

    Attributes:
        matrix: `[in, out]`, orthonormal columns where in >= out, orthonormal rows otherwise.
        scale: one positive number, 1 where scaling was not asked for.
    """

    matrix: Tensor
    scale: float

    def __call__(self, x: Tensor) -> Tensor:
        """Map `x` `[row, in]` to `[row, out]`."""
        return self.scale * (x @ self.matrix)


def procrustes(x: Tensor, y: Tensor, *, scaled: bool = False) -> Rotation:
    """Find the rotation R that makes `x @ R` closest to `y`.

    R = U V^T of the singular value decomposition of x^T y. Centre both sides before, where the
    clouds are not centred at the origin. Widths may differ; R is then a partial isometry.

    Args:
        x: `[row, in]`.
        y: `[row, out]`.
        scaled: also fit one scale, sum of singular values over |x R|^2.

    Returns:
        The rotation; `rotation(x)` applies it.

    Raises:
        NumericalError: where the rows differ in number or values are not finite.

    Source: Schoenemann, A generalized solution of the orthogonal Procrustes problem, 1966.

    Example:
        >>> import torch
        >>> x = torch.eye(2)
        >>> turned = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
        >>> bool(torch.allclose(procrustes(x, x @ turned)(x), turned))
        True
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[0] != y.shape[0]:
        raise NumericalError(
            f"procrustes needs x [row, in] and y [row, out] with the same rows, got "
            f"{list(x.shape)} and {list(y.shape)}; give the same items on both sides."
        )
    cross = x.T @ y
    if not torch.isfinite(cross).all():
        raise NumericalError(
            "procrustes was given values that are NaN or infinite; look for overflow in what made them."
        )
    left, values, right = torch.linalg.svd(cross, full_matrices=False)
    matrix = left @ right
    if not scaled:
        return Rotation(matrix, 1.0)
    length = float(((x @ matrix) ** 2).sum())
    return Rotation(matrix, float(values.sum()) / length if length > 0 else 1.0)
