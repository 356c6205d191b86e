"""Norms and angles of models, and the shares by which spherical methods add models up.

Everything that slerp, its relatives and model stock need of tensors is their inner products. These are taken in one
pass, block by block: float32 inside a block, float64 over blocks. What follows is arithmetic on a few numbers, and the
result is a weighted sum.
"""

from __future__ import annotations

import torch
from torch import Tensor

from umaf.merging.contract import Passes

BLOCK = 1024
"""Entries whose products are added up in float32: with 1024 the error of a sum is some 1e-8 of it."""

LERP_ABOVE = 0.9995
"""Cosine above which an arc and its chord are the same to 1.3e-4 of their length, and the chord is taken."""

_TINY, _FLAT = 1e-30, 1e-3
_ACROSS = 0.03


def inner(rows: Tensor) -> Tensor:
    """Give the inner products of models, row by row.

    Args:
        rows: `[row, model, entry]`.

    Returns:
        `[row, model, model]`, float64.

    Example:
        >>> inner(torch.tensor([[[3.0, 4.0], [1.0, 0.0]]]))
        tensor([[[25.,  3.],
                 [ 3.,  1.]]], dtype=torch.float64)
    """
    count, models, _ = rows.shape
    total = torch.zeros(count, models, models, dtype=torch.float64, device=rows.device)
    for part in rows.split(BLOCK, dim=-1):
        total += torch.bmm(part, part.transpose(1, 2))
    squares = total.diagonal(dim1=1, dim2=2)
    if not bool(torch.isfinite(total).all()) or bool((squares < _TINY).any()):
        # Squares beyond the range of float32, or below it.
        total.zero_()
        for part in rows.split(BLOCK, dim=-1):
            exact = part.double()
            total += torch.bmm(exact, exact.transpose(1, 2))
    return (total + total.transpose(1, 2)) / 2


def gram(passes: Passes, models: int) -> Tensor:
    """Give the inner products of models over everything that is passed.

    Args:
        passes: the data.
        models: how many there are.

    Returns:
        `[model, model]`, float64.

    Example:
        >>> from umaf.merging.contract import once
        >>> gram(once(torch.tensor([[3.0, 4.0], [1.0, 0.0]])), 2)
        tensor([[25.,  3.],
                [ 3.,  1.]], dtype=torch.float64)
    """
    total = _gram(passes, models, torch.float32)
    if not bool(torch.isfinite(total).all()) or bool((total.diagonal() < _TINY).any()):
        # Squares beyond the range of float32, or below it.
        total = _gram(passes, models, torch.float64)
    return (total + total.T) / 2


def _gram(passes: Passes, models: int, dtype: torch.dtype) -> Tensor:
    total = torch.zeros(models, models, dtype=torch.float64)
    for _, chunk in passes():
        even = chunk.shape[1] - chunk.shape[1] % BLOCK
        if even:
            blocks = chunk[:, :even].view(models, -1, BLOCK).transpose(0, 1).to(dtype)
            total += torch.bmm(blocks, blocks.transpose(1, 2)).sum(0, dtype=torch.float64)
        if even < chunk.shape[1]:
            rest = chunk[:, even:].double()
            total += rest @ rest.T
    return total


def norms(products: Tensor) -> Tensor:
    """Give the norms `[..., model]` out of inner products `[..., model, model]`.

    Example:
        >>> norms(torch.tensor([[25.0, 3.0], [3.0, 1.0]]))
        tensor([5., 1.])
    """
    return products.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()


def cosines(products: Tensor) -> Tensor:
    """Give the cosines out of inner products, both `[..., model, model]`; 0 where a norm is 0.

    Example:
        >>> cosines(torch.tensor([[25.0, 3.0], [3.0, 1.0]]))
        tensor([[1.0000, 0.6000],
                [0.6000, 1.0000]])
    """
    lengths = norms(products)
    both = lengths[..., :, None] * lengths[..., None, :]
    return torch.where(both > 0, products / both, 0.0).clamp(-1, 1)


def arc_shares(products: Tensor, t: float, *, lerp_above: float = 1.0) -> Tensor:
    """Give the shares of two models at a point of the arc between their directions.

    Args:
        products: inner products `[..., 2, 2]`, float64.
        t: 0 is the first model, 1 the second.
        lerp_above: cosine above which the chord is taken for the arc.

    Returns:
        `[..., 2]`. Along the chord, `1 - t` and `t`, where there is no arc: a norm is 0, or directions are opposite
        to within 0.001 of a turn's radius.

    Example:
        >>> arc_shares(torch.eye(2, dtype=torch.float64), 0.5)
        tensor([0.7071, 0.7071], dtype=torch.float64)
    """
    cosine = cosines(products)[..., 0, 1]
    angle = torch.arccos(cosine)
    height = torch.sin(angle)
    chord = (norms(products) == 0).any(-1) | (cosine > lerp_above) | (height == 0)
    chord |= (cosine < 0) & (height < _FLAT)
    safe = torch.where(chord, 1.0, height)
    first = torch.where(chord, 1 - t, torch.sin((1 - t) * angle) / safe)
    second = torch.where(chord, t, torch.sin(t * angle) / safe)
    return torch.stack([first, second], dim=-1)


def direction_shares(products: Tensor, weight: Tensor) -> Tensor:
    """Give the shares for the direction of the weighted mean of directions, at the weighted mean of norms.

    Args:
        products: inner products `[model, model]`, float64.
        weight: `[model]`, float64; used as they are.

    Returns:
        `[model]`. The weights themselves, where directions cancel.

    Example:
        >>> direction_shares(torch.diag(torch.tensor([1.0, 9.0])), torch.tensor([0.5, 0.5]))
        tensor([1.4142, 0.4714])
    """
    lengths = norms(products)
    shares = torch.where(lengths > 0, weight / lengths, 0.0)
    length = (shares @ products @ shares).clamp(min=0).sqrt()
    if length <= _FLAT * weight.abs().sum():
        return weight
    return shares * ((weight * lengths).sum() / length)


def karcher_shares(products: Tensor, weight: Tensor, *, max_iter: int, tol: float) -> Tensor:
    """Give the shares for the Karcher mean of directions, at the weighted mean of norms.

    Args:
        products: inner products `[model, model]`, float64.
        weight: `[model]`, float64, not negative; only proportions matter.
        max_iter: most steps.
        tol: a step shorter than this angle, in radians, ends the search.

    Returns:
        `[model]`. The weights themselves, where directions cancel: their mean is shorter than 0.03.

    Example:
        >>> karcher_shares(torch.eye(2).double(), torch.ones(2).double(), max_iter=10, tol=1e-5)
        tensor([0.7071, 0.7071], dtype=torch.float64)
    """
    lengths, angles = norms(products), cosines(products)
    weight = weight / weight.sum()
    part = torch.where(lengths > 0, weight, 0.0)
    point = part.clone()
    length = (point @ angles @ point).clamp(min=0).sqrt()
    if length <= _ACROSS:
        return weight
    point /= length
    part = part / part.sum()
    for _ in range(max_iter):
        cosine = (angles @ point).clamp(-1, 1)
        angle = torch.arccos(cosine)
        height = torch.sin(angle)
        # theta / sin theta: 1 at 0; there is no one way to go towards the opposite point.
        stretch = torch.where(height > 0, angle / torch.where(height > 0, height, 1.0), 1.0)
        stretch = torch.where((cosine < 0) & (height < _ACROSS), 0.0, stretch)
        pull = part * stretch
        step = pull - (pull @ cosine) * point
        reach = (step @ angles @ step).clamp(min=0).sqrt()
        if reach < tol:
            break
        point = torch.cos(reach) * point + torch.sin(reach) / reach * step
        point /= (point @ angles @ point).clamp(min=0).sqrt()
    return torch.where(lengths > 0, point / lengths, 0.0) * (weight * lengths).sum()


def stock_ratio(products: Tensor) -> Tensor:
    """Give model stock's share of the mean of models, the rest being the base.

    Args:
        products: inner products of deltas `[..., model, model]`.

    Returns:
        t `[...]`, from 0 to 1: N c / (1 + (N - 1) c), c the mean cosine of two models.

    Example:
        >>> stock_ratio(torch.tensor([[1.0, 0.5], [0.5, 1.0]]))
        tensor(0.6667)
    """
    models = products.shape[-1]
    angles = cosines(products)
    pairs = angles.sum((-2, -1)) - angles.diagonal(dim1=-2, dim2=-1).sum(-1)
    mean = (pairs / (models * (models - 1))).clamp(0, 1)
    return models * mean / (1 + (models - 1) * mean)
