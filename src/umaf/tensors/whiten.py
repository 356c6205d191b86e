"""Standardise and whiten clouds of points."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from umaf.errors import NumericalError


@dataclass(frozen=True)
class Whitener:
    """A map of points: centre, then stretch each known direction by its own gain.

    The directions the points span get their gains; every other direction gets `rest`. So a map of
    few points in a wide space stays small.

    Attributes:
        mean: `[hidden]`.
        directions: `[hidden, known]`, orthonormal columns.
        gains: `[known]`.
        rest: the gain of everything outside the known directions.
    """

    mean: Tensor
    directions: Tensor
    gains: Tensor
    rest: float

    def __call__(self, x: Tensor) -> Tensor:
        """Map `x` `[..., hidden]` to the same shape."""
        centred = x - self.mean
        along = (centred @ self.directions) * (self.gains - self.rest)
        return self.rest * centred + along @ self.directions.T


def standardise(x: Tensor, *, reference: Tensor | None = None) -> Tensor:
    """Bring every column to mean 0 and standard deviation 1.

    Args:
        x: `[row, hidden]`.
        reference: `[row, hidden]` whose mean and deviation are used; `x` itself by default.

    Returns:
        `[row, hidden]`; a column that does not vary in the reference becomes 0 where it equals the
        reference's mean, and stays at its distance from it otherwise.

    Example:
        >>> import torch
        >>> standardise(torch.tensor([[1.0], [3.0]])).flatten().tolist()
        [-1.0, 1.0]
    """
    known = x if reference is None else reference
    deviation = known.std(0, unbiased=False)
    return (x - known.mean(0)) / torch.where(deviation > 0, deviation, torch.ones_like(deviation))


def whitener(x: Tensor, *, shrinkage: float = 0.1) -> Whitener:
    """Make the map that gives a cloud the same spread in every direction.

    The covariance is drawn towards a multiple of the identity first, because there are often fewer
    points than directions. The multiple is the mean variance, so that the map follows a rotation
    and undoes a scaling of the points.

    Args:
        x: `[row, hidden]`, at least 2 rows.
        shrinkage: weight of the identity, in (0, 1]; 1 only centres and scales.

    Returns:
        The map; `whitener(x)(y)` applies it.

    Raises:
        NumericalError: fewer than 2 rows, values not finite, or a shrinkage outside (0, 1].

    Source: Ledoit and Wolf, 2004 (shrinkage target); Kessy et al., 2018 (ZCA whitening).

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
        >>> whitener(x)(x).abs().flatten().unique().numel()
        1
    """
    if x.ndim != 2 or x.shape[0] < 2 or not torch.isfinite(x).all() or not 0 < shrinkage <= 1:
        raise NumericalError(
            f"whitening needs finite points [row, hidden] with 2 or more rows and a shrinkage in "
            f"(0, 1], got {list(x.shape)} and {shrinkage}."
        )
    mean = x.mean(0)
    _, values, directions = torch.linalg.svd(x - mean, full_matrices=False)
    variances = values**2 / x.shape[0]
    middle = float(variances.sum()) / x.shape[1]
    if middle == 0:
        return Whitener(mean, directions.T, torch.ones_like(values), 1.0)
    gains = ((1 - shrinkage) * variances + shrinkage * middle).rsqrt()
    return Whitener(mean, directions.T, gains, (shrinkage * middle) ** -0.5)
