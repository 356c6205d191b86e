"""Low-rank deltas as factors, and their algebra: exact, by QR of thin matrices, never through the dense matrix.

A delta of shape `[out, in]` and rank r is `b @ a`. Sums are concatenations, inner products are traces of small
matrices, and a singular value decomposition costs two QRs of thin matrices and one SVD of an r by r core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import pad

from umaf.errors import NumericalError

Rank: TypeAlias = int | Literal["auto"]
"""A rank, or "auto": whatever is enough."""


@dataclass(frozen=True)
class LowRank:
    """A delta `b @ a`; any scale is part of b.

    Attributes:
        a: `[*batch, rank, in]`; batches are experts.
        b: `[*batch, out, rank]`.

    Example:
        >>> LowRank(torch.ones(1, 3), torch.ones(2, 1)).shape
        (2, 3)
    """

    a: Tensor
    b: Tensor

    def __post_init__(self) -> None:
        fits = self.a.ndim >= 2 and self.a.ndim == self.b.ndim and self.a.shape[:-2] == self.b.shape[:-2]
        if not fits or self.a.shape[-2] != self.b.shape[-1]:
            raise NumericalError(
                f"factors must be a [rank, in] and b [out, rank] of one rank, got a {list(self.a.shape)} and "
                f"b {list(self.b.shape)}."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the delta: `(*batch, out, in)`."""
        return (*self.b.shape[:-1], self.a.shape[-1])

    @property
    def rank(self) -> int:
        """Number of columns of b; the delta's own rank may be lower."""
        return self.a.shape[-2]

    def dense(self) -> Tensor:
        """Multiply out: `[*batch, out, in]`."""
        return self.b @ self.a

    def padded(self, rank: int) -> LowRank:
        """Fill the factors with zeros up to a rank; those that have it already stay as they are."""
        more = max(0, rank - self.rank)
        return LowRank(pad(self.a, (0, 0, 0, more)), pad(self.b, (0, more))) if more else self


def nothing(shape: Sequence[int], *, dtype: torch.dtype = torch.float32) -> LowRank:
    """Give the delta that changes nothing, of rank 0.

    Example:
        >>> nothing((2, 3)).dense().shape
        torch.Size([2, 3])
    """
    *batch, out, width = shape
    return LowRank(torch.zeros(*batch, 0, width, dtype=dtype), torch.zeros(*batch, out, 0, dtype=dtype))


def add(parts: Sequence[LowRank], weights: Sequence[float] | None = None) -> LowRank:
    """Add deltas up with weights, exactly: factors are put side by side.

    Args:
        parts: of one shape, at least one.
        weights: one for each; None for ones.

    Returns:
        A delta whose rank is the sum of their ranks; :func:`truncate` takes what it needs not.

    Raises:
        NumericalError: shapes differ, or there are not as many weights as deltas.

    Example:
        >>> one = LowRank(torch.ones(1, 2), torch.ones(2, 1))
        >>> add([one, one], [1.0, -0.5]).dense().tolist()
        [[0.5, 0.5], [0.5, 0.5]]
    """
    _check(parts)
    weights = [1.0] * len(parts) if weights is None else list(weights)
    if len(weights) != len(parts):
        raise NumericalError(f"{len(parts)} deltas and {len(weights)} weights were given; give one for each.")
    b = [part.b * weight for part, weight in zip(parts, weights, strict=True)]
    return LowRank(torch.cat([part.a for part in parts], dim=-2), torch.cat(b, dim=-1))


def inner(x: LowRank, y: LowRank) -> Tensor:
    """Sum the products of entries, `tr(x^T y)`.

    Returns:
        `[*batch]`.

    Example:
        >>> one = LowRank(torch.ones(1, 2), torch.ones(3, 1))
        >>> inner(one, one)
        tensor(6.)
    """
    _check([x, y])
    return ((x.b.mT @ y.b) * (x.a @ y.a.mT)).sum((-2, -1))


def norm(x: LowRank) -> Tensor:
    """Give the Frobenius norm, through triangular factors: no square is cancelled on the way.

    Returns:
        `[*batch]`.

    Example:
        >>> norm(LowRank(torch.tensor([[3.0, 4.0]]), torch.ones(1, 1)))
        tensor(5.)
    """
    return torch.linalg.matrix_norm(_triangle(x.b) @ _triangle(x.a.mT).mT)


def svd(x: LowRank) -> tuple[Tensor, Tensor, Tensor]:
    """Decompose into singular triplets, largest first: two thin QRs and an SVD of the core between them.

    Returns:
        `u [*batch, out, k]`, `s [*batch, k]`, `vt [*batch, k, in]`, with k the least of rank, out and in.

    Raises:
        NumericalError: a factor holds NaN or infinity.

    Example:
        >>> u, s, vt = svd(LowRank(torch.tensor([[0.0, 2.0]]), torch.tensor([[3.0], [0.0]])))
        >>> s
        tensor([6.])
    """
    if not bool(torch.isfinite(x.a).all() and torch.isfinite(x.b).all()):
        raise NumericalError("a low-rank delta holds NaN or infinity; repair or leave out what it came from.")
    left, upper = torch.linalg.qr(x.b)
    right, lower = torch.linalg.qr(x.a.mT)
    u, s, vt = torch.linalg.svd(upper @ lower.mT, full_matrices=False)
    return left @ u, s, vt @ right.mT


def truncate(x: LowRank, rank: Rank = "auto", *, energy: float | None = None) -> tuple[LowRank, float]:
    """Give the nearest delta of a lower rank; a and b share the singular values evenly.

    Args:
        x: a delta.
        rank: kept at most; "auto" keeps all but rounding, or what `energy` asks for.
        energy: share of the squared norm to keep, in (0, 1]: the lowest rank that does it is taken, within `rank`.

    Returns:
        The delta, of rank 1 or more, and its relative error in the Frobenius norm. A batch has one rank and one error.

    Raises:
        NumericalError: a rank below 1, an energy outside (0, 1], or values that are not finite.

    Source: Eckart and Young, Psychometrika 1936.

    Example:
        >>> x = LowRank(torch.diag(torch.tensor([4.0, 3.0])), torch.eye(2))
        >>> small, error = truncate(x, 1)
        >>> small.rank, round(error, 3)
        (1, 0.6)
    """
    if rank != "auto" and rank < 1:
        raise NumericalError(f"a delta was to be truncated to rank {rank}; give 1 or more.")
    u, s, vt = svd(x)
    kept = rank_of(s, (s.shape[-1], *x.shape[-2:]), energy=energy)
    kept = kept if rank == "auto" else min(rank, kept if energy is not None else s.shape[-1])
    root = s[..., :kept].sqrt()
    small = LowRank(root.unsqueeze(-1) * vt[..., :kept, :], u[..., :kept] * root.unsqueeze(-2))
    return small.padded(1), relative(s[..., kept:], s)


def rank_of(values: Tensor, sides: Sequence[int], *, energy: float | None = None) -> int:
    """Count the singular values that matter.

    Args:
        values: `[*batch, k]`, falling; of a batch the largest count is taken.
        sides: lengths by which rounding grows; the largest matters.
        energy: share of the squared norm that those counted hold, in (0, 1]; None counts all above rounding.

    Returns:
        At least 1, but for no values at all.

    Raises:
        NumericalError: an energy outside (0, 1].

    Example:
        >>> rank_of(torch.tensor([2.0, 1.0, 1e-9]), (3, 3)), rank_of(torch.tensor([3.0, 1.0]), (2, 2), energy=0.9)
        (2, 1)
    """
    if energy is not None and not 0 < energy <= 1:
        raise NumericalError(f"a share of energy must lie in (0, 1], got {energy:g}.")
    if values.numel() == 0:
        return 0
    rows = values.double().reshape(-1, values.shape[-1])
    edge = torch.finfo(values.dtype).eps * max(sides) * rows[:, :1]
    counts = (rows > edge).sum(-1)
    if energy is not None:
        squares = rows.square()
        # From the smallest up, so that a share near 1 is not lost to rounding.
        tail = squares.flip(-1).cumsum(-1).flip(-1)
        counts = torch.minimum(counts, (tail > (1 - energy) * (1 + 1e-12) * tail[:, :1]).sum(-1))
    return max(1, int(counts.max()))


def relative(rest: Tensor, values: Tensor) -> float:
    """Divide the norm of what is left out by the norm of all; 0 where there is nothing.

    Example:
        >>> relative(torch.tensor([3.0]), torch.tensor([4.0, 3.0]))
        0.6
    """
    whole = float(values.double().square().sum())
    return (float(rest.double().square().sum()) / whole) ** 0.5 if whole > 0 else 0.0


def joint(parts: Sequence[LowRank]) -> tuple[Tensor, Tensor, Tensor]:
    """Write deltas as small cores between one left and one right basis that all of them share.

    Args:
        parts: of one shape.

    Returns:
        `cores [model, *batch, R, R']`, `left [*batch, out, R]`, `right [*batch, R', in]`, with orthonormal columns and
        rows: delta_i is `left @ cores[i] @ right`. Any norm, inner product or singular value of the cores is that of
        the deltas.

    Raises:
        NumericalError: shapes differ.

    Example:
        >>> one = LowRank(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[2.0], [0.0]]))
        >>> cores, left, right = joint([one, one])
        >>> cores.shape, (left @ cores[0] @ right).round(decimals=4).tolist()
        (torch.Size([2, 2, 2]), [[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    """
    _check(parts)
    left, upper = torch.linalg.qr(torch.cat([part.b for part in parts], dim=-1))
    right, lower = torch.linalg.qr(torch.cat([part.a for part in parts], dim=-2).mT)
    ranks = [part.rank for part in parts]
    pairs = zip(upper.split(ranks, dim=-1), lower.split(ranks, dim=-1), strict=True)
    return torch.stack([own @ other.mT for own, other in pairs]), left, right.mT


def _triangle(tall: Tensor) -> Tensor:
    return torch.linalg.qr(tall, mode="r").R


def _check(parts: Sequence[LowRank]) -> None:
    if not parts:
        raise NumericalError("deltas were to be combined, but there are none; give at least one.")
    for part in parts[1:]:
        if part.shape != parts[0].shape:
            raise NumericalError(
                f"deltas of shapes {list(parts[0].shape)} and {list(part.shape)} cannot be combined; make them equal."
            )
