"""The small rules that sparse merge methods are made of: trim, elect, add up what agrees.

All of them take a stack `[model, *shape]` and leave it as it is, except `consensus`, which says so. They go through it
model by model, with everything that is done to a row done at once, while it is near the processor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from umaf.errors import ConfigError
from umaf.merging.contract import Passes, PerModel
from umaf.tensors.select import Chunks, Sampled, kth_largest

_PIECE = 1 << 16


def per_model(value: PerModel, models: int) -> list[float]:
    """Give a number for each model.

    Raises:
        ConfigError: there are not as many numbers as models.

    Example:
        >>> per_model(0.5, 2), per_model([1, 2], 2)
        ([0.5, 0.5], [1.0, 2.0])
    """
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, (int, float)):
        return [float(value)] * models
    if len(value) != models:
        raise ConfigError(
            f"There are {models} models and {len(value)} numbers for them; give one number each."
        )
    return [float(one) for one in value]


def kept(density: float, entries: int) -> int:
    """Tell how many of `entries` a density keeps: the share rounded down, at least one.

    Example:
        >>> kept(0.2, 64), kept(0.2, 1), kept(1.0, 64)
        (12, 1, 64)
    """
    return entries if density >= 1 else min(entries, max(1, int(density * entries)))


def magnitudes(passes: Passes) -> Chunks:
    """Give the passes over absolute values; every chunk reuses the same memory.

    Example:
        >>> list(magnitudes(lambda: iter([("w", torch.tensor([[-1.0, 2.0]]))]))())
        [tensor([[1., 2.]])]
    """
    room = torch.empty(0)

    def positive(chunk: Tensor) -> Tensor:
        nonlocal room
        if room.shape != chunk.shape or room.dtype != chunk.dtype:
            room = torch.empty_like(chunk)
        return torch.abs(chunk, out=room)

    return mapped(passes, positive)


def mapped(passes: Passes, function: Callable[[Tensor], Tensor]) -> Chunks:
    """Give passes over what a function makes of each chunk, thin ones too where there are such.

    Example:
        >>> list(mapped(lambda: iter([("w", torch.ones(1, 2))]), torch.neg)())
        [tensor([[-1., -1.]])]
    """

    def chunks() -> Iterator[Tensor]:
        return (function(chunk) for _, chunk in passes())

    thin = getattr(passes, "thin", None)
    if thin is None:
        return chunks
    return Sampled(chunks, lambda: (function(chunk) for _, chunk in thin()), passes.entries)


def thresholds(passes: Passes, counts: Callable[[int], Sequence[int]]) -> Tensor:
    """Find the magnitude at which each model is trimmed: its k-th largest, exactly.

    Args:
        passes: the data.
        counts: gives k for each model from the number of entries; 0 gives +inf.

    Returns:
        `[model]`.

    Example:
        >>> stack = torch.tensor([[1.0, -3.0, 2.0]])
        >>> thresholds(lambda: iter([("w", stack)]), lambda n: [2])
        tensor([2.])
    """
    return kth_largest(magnitudes(passes), lambda n: [[k] for k in counts(n)])[:, 0]


def trim(stack: Tensor, threshold: Tensor) -> Tensor:
    """Set to zero what is smaller in magnitude than its model's threshold; what equals it stays.

    Args:
        stack: `[model, *shape]`.
        threshold: `[model]`.

    Returns:
        A new stack.

    Example:
        >>> trim(torch.tensor([[1.0, -3.0, 2.0]]), torch.tensor([2.0]))
        tensor([[ 0., -3.,  2.]])
    """
    out = torch.empty_like(stack)
    # hardshrink zeroes |x| <= limit in one pass: the limit is the number just below the threshold.
    below = torch.nextafter(threshold.to(stack.dtype), torch.zeros((), dtype=stack.dtype))
    for row, target, limit in zip(stack.unbind(0), out.unbind(0), below.clamp_(min=0).tolist(), strict=True):
        torch.hardshrink(row, limit, out=target)
    return out


def l1(row: Tensor) -> float:
    """Sum magnitudes: in pieces that stay in the cache, and over them in float64.

    Example:
        >>> l1(torch.tensor([[1.0, -2.0]]))
        3.0
    """
    if row.numel() <= _PIECE:
        return row.abs().sum().item()
    return sum(part.abs().sum().item() for part in row.reshape(-1).split(_PIECE))


def summed(row: Tensor) -> float:
    """Sum numbers as `l1` does: of magnitudes, which are at hand, the same bits.

    Example:
        >>> summed(torch.tensor([[1.0, 2.0]]))
        3.0
    """
    if row.numel() <= _PIECE:
        return row.sum().item()
    return sum(part.sum().item() for part in row.reshape(-1).split(_PIECE))


def weighted_sum(stack: Tensor, weight: PerModel, *, normalize: bool = False) -> Tensor:
    """Add up the rows times their weights, in the order of the stack.

    Args:
        stack: `[model, *shape]`.
        weight: for all models or for each.
        normalize: divide by the sum of weights, where it is not 0.

    Example:
        >>> weighted_sum(torch.tensor([[1.0], [2.0]]), [1.0, 0.5])
        tensor([2.])
    """
    return added(stack.unbind(0), factors(weight, stack.shape[0], normalize=normalize))


def factors(weight: PerModel, models: int, *, normalize: bool) -> list[float]:
    """Give what rows are multiplied by in a weighted sum.

    Args:
        weight: for all models or for each.
        models: how many there are.
        normalize: divide by the sum of weights, where it is not 0.

    Example:
        >>> factors([3.0, 1.0], 2, normalize=True)
        [0.75, 0.25]
    """
    shares = per_model(weight, models)
    total = sum(shares)
    return [share / total for share in shares] if normalize and abs(total) >= 1e-8 else shares


def added(rows: Iterable[Tensor], shares: Sequence[float]) -> Tensor:
    """Add up rows times factors, in their order; a row may be overwritten once the next is asked for.

    Example:
        >>> added([torch.ones(2), torch.ones(2)], [1.0, 0.5])
        tensor([1.5000, 1.5000])
    """
    pairs = zip(rows, shares, strict=True)
    row, share = next(pairs)
    out = row * share
    for row, share in pairs:
        out.add_(row, alpha=share)
    return out


def total(stack: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Add up the rows, in their order; of a stack of one row that row itself, where no other memory is named.

    Args:
        stack: `[model, *shape]`.
        out: where to, `[*shape]`; the first row may be it.

    Example:
        >>> total(torch.tensor([[1.0], [2.0]]))
        tensor([3.])
    """
    first, *others = stack.unbind(0)
    if not others:
        return first if out is None else out.copy_(first)
    out = torch.add(first, others[0], out=out)
    for row in others[1:]:
        out.add_(row)
    return out


def elect(stack: Tensor, *, tie: float = 1.0) -> Tensor:
    """Elect a sign for each entry: that of the sum over models.

    Args:
        stack: `[model, *shape]`.
        tie: sign where the sum is 0: 1, -1, or 0 for none.

    Returns:
        `[*shape]` of -1, 1 and perhaps 0, in the stack's dtype.

    Example:
        >>> elect(torch.tensor([[1.0, -3.0, 0.0], [1.0, 1.0, 0.0]]))
        tensor([ 1., -1.,  1.])
    """
    first, *others = stack.unbind(0)
    signs = first.clone()
    for row in others:
        signs.add_(row)
    return _settled(signs, tie)


def _settled(sums: Tensor, tie: float) -> Tensor:
    signs = sums.sign_()
    if tie:
        signs.add_(torch.eq(signs, 0, out=torch.empty_like(signs)), alpha=tie)
    return signs


def disjoint(
    stack: Tensor,
    signs: Tensor,
    *,
    weight: PerModel = 1.0,
    share: PerModel = 1.0,
    combine: Literal["mean", "sum", "max"] = "mean",
) -> Tensor:
    """Combine, entry by entry, the models that have the elected sign.

    Args:
        stack: `[model, *shape]`.
        signs: `[*shape]`, as from `elect`.
        weight: what a model's entries are multiplied by.
        share: what a model that agrees adds to the divisor of the mean: 1 counts models.
        combine: "mean" divides by the sum of shares (by 1 where it is 0), "sum" does not, "max" takes the largest.

    Returns:
        `[*shape]`.

    Example:
        >>> stack = torch.tensor([[1.0, -3.0], [2.0, 1.0]])
        >>> disjoint(stack, elect(stack))
        tensor([ 1.5000, -3.0000])
    """
    models = stack.shape[0]
    total, agreeing = torch.zeros_like(signs), torch.empty_like(signs)
    divisor = torch.zeros_like(signs) if combine == "mean" else total
    rows = zip(stack.unbind(0), per_model(weight, models), per_model(share, models), strict=True)
    for row, factor, part in rows:
        torch.mul(row, signs, out=agreeing).clamp_(min=0)
        if combine == "max":
            torch.maximum(total, agreeing.mul_(factor), out=total)
            continue
        total.add_(agreeing, alpha=factor)
        if combine == "mean":
            divisor.add_(agreeing.sign_(), alpha=part)
    if combine == "mean":
        divisor.add_(torch.eq(divisor, 0, out=agreeing))
        total.div_(divisor)
    return total.mul_(signs)


def consensus(
    stack: Tensor,
    weight: PerModel,
    *,
    elect: Literal["unweighted", "weighted"],
    divisor: Literal["count", "weights"],
    combine: Literal["mean", "sum", "max"],
    tie: float = 1.0,
) -> Tensor:
    """Elect a sign for each entry and combine the models that have it; the stack may be overwritten.

    Args:
        stack: `[model, *shape]`, trimmed or dropped; it may hold something else afterwards.
        weight: of each model.
        elect: by the sum of the stack, or of the weighted stack.
        divisor: of the mean: how many models agree, or the sum of their weights.
        combine: see `disjoint`.
        tie: the sign where the sum is 0.

    Example:
        >>> consensus(torch.tensor([[1.0], [-3.0]]), [4.0, 1.0], elect="weighted", divisor="count", combine="sum")
        tensor([4.])
    """
    signs, factor = signs_of(stack, weight, elect, tie=tie)
    share = weight if divisor == "weights" else 1.0
    return disjoint(stack, signs, weight=factor, share=share, combine=combine)


def signs_of(
    stack: Tensor, weight: PerModel, by: Literal["unweighted", "weighted"], *, tie: float
) -> tuple[Tensor, PerModel]:
    """Elect signs by values or by weighted values; in the second case the stack is multiplied by the weights.

    Returns:
        The signs, and the weights that the rows are still to be multiplied by.

    Example:
        >>> stack = torch.tensor([[1.0], [-3.0]])
        >>> signs_of(stack, [4.0, 1.0], "weighted", tie=1.0), stack[0]
        ((tensor([1.]), 1.0), tensor([4.]))
    """
    if by == "unweighted":
        return elect(stack, tie=tie), weight
    first, *others = zip(stack.unbind(0), per_model(weight, stack.shape[0]), strict=True)
    signs = first[0].mul_(first[1]).clone()
    for row, factor in others:
        signs.add_(row.mul_(factor))
    return _settled(signs, tie), 1.0


def squares(stack: Tensor) -> Tensor:
    """Sum the squares of each row, in float64.

    Args:
        stack: `[model, *shape]`.

    Returns:
        `[model]`.

    Example:
        >>> squares(torch.tensor([[3.0, 4.0]]))
        tensor([25.], dtype=torch.float64)
    """
    pieces = ([row] if row.numel() <= _PIECE else row.split(_PIECE) for row in stack.flatten(1))
    sums = [sum(_square(part) for part in row) for row in pieces]
    return torch.tensor(sums, dtype=torch.float64)


def _square(part: Tensor) -> float:
    # A float32 product of 65,536 entries is exact to 1e-7, and six times as fast as one in float64.
    found = float(torch.dot(part, part))
    if 1e-30 < found < float("inf"):
        return found
    return float(part.double().square().sum())


def shares(sums: Tensor) -> Tensor:
    """Divide numbers by their sum; all equal where that is 0.

    Example:
        >>> shares(torch.tensor([1.0, 3.0])), shares(torch.zeros(2))
        (tensor([0.2500, 0.7500]), tensor([0.5000, 0.5000]))
    """
    total = sums.sum()
    return sums / total if total > 0 else torch.full_like(sums, 1 / sums.numel())
