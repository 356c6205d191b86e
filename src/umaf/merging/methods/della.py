"""DELLA: drop small entries of each row with a greater chance than large ones, then elect signs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from umaf.errors import ConfigError
from umaf.merging.chance import RESOLUTION, Rescale, draw, fixed_generator, masked
from umaf.merging.contract import Needs, PerModel, Span, merge_method
from umaf.merging.methods.ties import Combine, Divisor, Elect
from umaf.merging.parts import consensus, l1, per_model, summed, weighted_sum

_BREAKS = {"single": "entries are dropped by chance", "same": "each copy loses other entries"}
_SOURCE = "Deep, Bhardwaj, Poria 2024, DELLA-Merging, arXiv 2406.11617, section 3 (MagPrune)"
# Another order of models gives each of them other random numbers.
_NEEDS = Needs(base="required", scope="tensor", random=True, order_matters=True, breaks=_BREAKS)
_BLOCK = 1 << 17  # entries that are ranked at a time: much smaller or larger is slower


def chances(density: float, epsilon: float, length: int) -> np.ndarray:
    """Give the chance to stay for each rank in a row, smallest magnitude first, in units of 1/65536.

    Args:
        density: mean chance.
        epsilon: half the distance between the smallest and the largest chance.
        length: of the row; a row of one entry has the mean chance.

    Raises:
        ConfigError: a chance would leave (0, 1).

    Example:
        >>> chances(0.5, 0.25, 3) / 65536
        array([0.25, 0.5 , 0.75])
    """
    if density - epsilon <= 0 or density + epsilon >= 1:
        raise ConfigError(
            f"della: density {density:g} with epsilon {epsilon:g} gives chances from {density - epsilon:g} to "
            f"{density + epsilon:g}; choose epsilon so that all lie between 0 and 1."
        )
    place = np.linspace(-1, 1, length) if length > 1 else np.zeros(1)
    return np.clip(np.rint((density + epsilon * place) * RESOLUTION), 1, RESOLUTION - 1).astype(np.uint16)


def drop_by_rank(
    stack: Tensor,
    density: PerModel,
    *,
    epsilon: PerModel = 0.07,
    generator: np.random.Generator | None = None,
    rescale: Rescale = "unbiased",
) -> Tensor:
    """Keep each entry by a chance that grows with the rank of its magnitude in its row, and rescale what is left.

    Rows are those of axis 1 of the stack; a vector is one row. Equal magnitudes are ranked in the order they have in
    the row. Chances are multiples of 1/65536, and the rescaling is by the chance that was really used.

    Args:
        stack: `[model, row, *shape]` or `[model, n]`.
        density: mean chance to stay; 1 or more keeps everything.
        epsilon: see `chances`.
        generator: where the chance comes from; None draws the same numbers in every call.
        rescale: "unbiased" divides each entry by its chance; "l1" gives what is left the sum of magnitudes that all
            had; "none" does not rescale.

    Returns:
        A new stack.

    Raises:
        ConfigError: a chance would leave (0, 1).

    Example:
        >>> one = drop_by_rank(torch.arange(1.0, 5.0)[None], 0.5, epsilon=0.25, rescale="none")
        >>> one.shape, bool(((one == 0) | (one == torch.arange(1.0, 5.0))).all())
        (torch.Size([1, 4]), True)
    """
    generator = generator if generator is not None else fixed_generator()
    out, factors = _dropped(stack, density, epsilon, generator, rescale)
    for row, factor in zip(out, factors, strict=True):
        row.mul_(factor)
    return out


def _dropped(
    stack: Tensor, density: PerModel, epsilon: PerModel, generator: np.random.Generator, rescale: Rescale
) -> tuple[Tensor, list[float]]:
    # The stack with entries dropped, and the number that each model is still to be multiplied by.
    models = stack.shape[0]
    made = torch.empty(stack.shape, dtype=stack.dtype)
    if stack.numel() == 0:
        return made, [1.0] * models
    factors = []
    options = zip(per_model(density, models), per_model(epsilon, models), strict=True)
    for row, target, (share, half) in zip(stack, made, options, strict=True):
        rows = row.shape[0] if row.ndim > 1 else 1
        lines, into = row.detach().cpu().reshape(rows, -1), target.view(rows, -1)
        factors.append(1.0)
        if share >= 1:
            into.copy_(lines)
            continue
        table = np.tile(chances(share, half, lines.shape[1]), min(rows, _step(lines.shape[1])))
        scales = RESOLUTION / table.astype(np.float64) if rescale == "unbiased" else np.ones(table.size)
        scales = scales.astype(lines.numpy().dtype)
        before = after = 0.0
        for start, stop in _blocks(*lines.shape):
            _drop(lines[start:stop], table, scales, generator, into[start:stop])
            if rescale == "l1":
                before, after = before + l1(lines[start:stop]), after + l1(into[start:stop])
        if after > 0:
            factors[-1] = before / after
    return made.to(stack.device), factors


def _step(length: int) -> int:
    return max(1, _BLOCK // max(1, length))


def _blocks(rows: int, length: int) -> Iterator[tuple[int, int]]:
    return ((start, min(rows, start + _step(length))) for start in range(0, rows, _step(length)))


def _drop(
    lines: Tensor, table: np.ndarray, scales: np.ndarray, generator: np.random.Generator, made: Tensor
) -> None:
    # The chance is drawn for places in the order of magnitude, where chances and scales are the same for all rows;
    # what they give is then carried to where the entries are.
    stays = draw(generator, lines.numel()) < table[: lines.numel()]
    factor = torch.from_numpy(np.multiply(scales[: lines.numel()], stays))
    made.view(-1).scatter_(0, torch.from_numpy(_by_magnitude(lines.numpy())), factor)
    made.mul_(lines)


def _by_magnitude(lines: np.ndarray) -> np.ndarray:
    # Flat positions, row after row, smallest magnitude first. A 64-bit word with the bits of the magnitude above the
    # position sorts both at once, several times as fast as sorting positions by looking up what they point to.
    if lines.dtype != np.float32 or lines.size >= 1 << 32:
        order = np.argsort(np.abs(lines), axis=1, kind="stable")
        return (order + np.arange(lines.shape[0])[:, None] * lines.shape[1]).ravel()
    words = np.empty(lines.shape, np.uint64)
    # By one place more than its 32 bits, so that the sign falls out at the top.
    np.left_shift(lines.view(np.uint32), 33, out=words, dtype=np.uint64)
    words |= _positions(lines.shape)
    words.sort(axis=1)
    words &= np.uint64(0xFFFFFFFF)
    return words.ravel().view(np.int64)


@lru_cache(maxsize=4)
def _positions(shape: tuple[int, ...]) -> np.ndarray:
    # Of all blocks of a tensor but the last one they are the same.
    found = np.arange(np.prod(shape), dtype=np.uint64).reshape(shape)
    found.flags.writeable = False
    return found


@dataclass(frozen=True)
class _Kept:
    """Which entries of one model stay, block by block in bits (None: all), and what they are multiplied by."""

    bits: Sequence[np.ndarray] | None = None
    factor: float = 1.0

    def apply(self, lines: Tensor, block: int, out: Tensor) -> None:
        """Write the entries of a block that stay, scaled, into `out`."""
        if self.bits is None:
            out.copy_(lines)
            return
        flags = np.unpackbits(self.bits[block], count=lines.numel()).view(bool).reshape(lines.shape)
        masked(lines, flags, out)
        out.mul_(self.factor)


def _keep(lines: Tensor, density: float, epsilon: float, generator: np.random.Generator) -> _Kept:
    if density >= 1:
        return _Kept()
    table = np.tile(chances(density, epsilon, lines.shape[1]), min(lines.shape[0], _step(lines.shape[1])))
    bits, before, after = [], 0.0, 0.0
    for start, stop in _blocks(*lines.shape):
        block = lines[start:stop]
        flags, order = torch.empty(block.numel(), dtype=torch.uint8), _by_magnitude(block.numpy())
        stays = draw(generator, block.numel()) < table[: block.numel()]
        flags.scatter_(0, torch.from_numpy(order), torch.from_numpy(stays.view(np.uint8)))
        bits.append(np.packbits(flags.numpy()))
        sizes, left = block.abs(), torch.empty_like(block)
        masked(sizes, flags.numpy().view(bool), left)
        before += summed(sizes)
        after += summed(left)
    return _Kept(bits, before / after if after > 0 else 1.0)


def _merge_l1(
    deltas: Tensor,
    density: PerModel,
    epsilon: PerModel,
    *,
    generator: np.random.Generator,
    combine: Callable[[Tensor], Tensor],
    out: Tensor,
) -> None:
    models = deltas.shape[0]
    lines = deltas.detach().cpu().reshape(models, deltas.shape[1], -1)
    options = zip(lines, per_model(density, models), per_model(epsilon, models), strict=True)
    found = [_keep(rows, share, half, generator) for rows, share, half in options]
    target = out.view(lines.shape[1:])
    for number, (start, stop) in enumerate(_blocks(*lines.shape[1:])):
        part = torch.empty(models, *target[start:stop].shape, dtype=deltas.dtype)
        for row, into, kept in zip(lines, part, found, strict=True):
            kept.apply(row[start:stop], number, into)
        target[start:stop] = combine(part).to(target.device)


def _merge(
    deltas: Tensor,
    density: PerModel,
    epsilon: PerModel,
    generator: np.random.Generator | None,
    rescale: Rescale,
    combine: Callable[[Tensor], Tensor],
) -> Tensor:
    # Block by block, in the cache. Only a sum of magnitudes is that of the whole tensor: there, which entries stay is
    # kept, in bits, until the factor is known.
    generator = generator if generator is not None else fixed_generator()
    out = torch.empty_like(deltas[0], memory_format=torch.contiguous_format)
    if out.numel() == 0:
        return out
    if rescale == "l1" and deltas.ndim > 2:
        _merge_l1(deltas, density, epsilon, generator=generator, combine=combine, out=out)
        return out
    if deltas.ndim < 3:
        dropped, factors = _dropped(deltas, density, epsilon, generator, rescale)
        flat, target = dropped.reshape(deltas.shape[0], -1), out.view(-1)
        for start in range(0, target.numel(), _BLOCK):
            part = flat[:, start : start + _BLOCK]
            for row, factor in zip(part, factors, strict=True):
                row.mul_(factor)
            target[start : start + _BLOCK] = combine(part)
        return out
    for start, stop in _blocks(deltas.shape[1], deltas[0, 0].numel()):
        dropped, _ = _dropped(deltas[:, start:stop], density, epsilon, generator, rescale)
        out[start:stop] = combine(dropped)
    return out


@merge_method(_NEEDS, source=_SOURCE)
def della(
    deltas: Float[Tensor, " model *shape"],
    *,
    weight: PerModel = 1.0,
    density: Annotated[PerModel, Span(0, 1, open_low=True)] = 0.7,
    epsilon: Annotated[PerModel, Span(0, 0.5, open_high=True)] = 0.07,
    rescale: Rescale = "unbiased",
    elect: Elect = "weighted",
    divisor: Divisor = "weights",
    combine: Combine = "mean",
    generator: np.random.Generator | None = None,
) -> Float[Tensor, "*shape"]:
    """Drop entries by a chance that falls with their rank in the row, elect a sign, and average what has it.

    DARE that spares large entries, with the election and the mean of TIES. Every tensor is merged by this rule; rows
    are those of the first axis (outputs of a linear layer, tokens of an embedding), a vector is one row.

        p_j = density - epsilon + 2 epsilon (rank_j - 1) / (n - 1), rank_j of |delta_j| in its row, n its length
        t   = m delta / p,  m ~ Bernoulli(p)
        s   = sign(sum_i w_i t_i), 0 counting as plus
        out = sum_{i: sign t_i = s} w_i t_i / sum of the same w_i

    Args:
        deltas: models minus base.
        weight: of each model.
        density: mean share of entries that stay, in (0, 1]; 1 keeps everything. The paper's drop rate is 1 - density.
        epsilon: half the paper's window: chances run from density - epsilon to density + epsilon, inside (0, 1).
        rescale: "unbiased" divides each entry by its chance, as in the paper. "l1" keeps the sum of magnitudes of the
            tensor, as mergekit does: large entries, which stay more often, then come out too large (the merged delta
            by 6 % for normal deltas at density 0.3 and epsilon 0.1, by 10 % where a few are outliers). "none" does
            not rescale.
        elect: by the sum of what is left, or of the weighted sum.
        divisor: of the mean, where `combine` is "mean": how many models agree, or the sum of their weights.
        combine: "mean", "sum" or "max".
        generator: where the chance comes from; None draws the same numbers in every call.

    Raises:
        ConfigError: a chance would leave (0, 1).

    Example:
        >>> della(torch.ones(3, 8, 8), density=0.5, epsilon=0.25).shape
        torch.Size([8, 8])

    Source: Deep, Bhardwaj, Poria: DELLA-Merging (2024), arXiv 2406.11617, section 3; the authors' example drops 0.3
    with a window of 0.14 and scales the result by 1.1.
    """

    def together(part: Tensor) -> Tensor:
        return consensus(part, weight, elect=elect, divisor=divisor, combine=combine)

    return _merge(deltas, density, epsilon, generator, rescale, together)


@merge_method(_NEEDS, source=_SOURCE)
def della_linear(
    deltas: Float[Tensor, " model *shape"],
    *,
    weight: PerModel = 1.0,
    density: Annotated[PerModel, Span(0, 1, open_low=True)] = 0.7,
    epsilon: Annotated[PerModel, Span(0, 0.5, open_high=True)] = 0.07,
    rescale: Rescale = "unbiased",
    normalize: bool = False,
    generator: np.random.Generator | None = None,
) -> Float[Tensor, "*shape"]:
    """Drop entries by a chance that falls with their rank in the row, rescale the rest, and add the deltas up.

    DELLA without the election of signs: DARE that spares large entries. Every tensor is merged by this rule.

        p_j = density - epsilon + 2 epsilon (rank_j - 1) / (n - 1), rank_j of |delta_j| in its row, n its length
        out = sum_i w_i m_i delta_i / p_i,  m_i ~ Bernoulli(p_i)

    Args:
        deltas: models minus base.
        weight: of each model in the sum.
        density: mean share of entries that stay, in (0, 1]; 1 keeps everything.
        epsilon: half the paper's window: chances run from density - epsilon to density + epsilon, inside (0, 1).
        rescale: see `della`; "unbiased" makes the expected result that of task arithmetic.
        normalize: divide by the sum of weights.
        generator: where the chance comes from; None draws the same numbers in every call.

    Raises:
        ConfigError: a chance would leave (0, 1).

    Example:
        >>> bool((della_linear(torch.ones(2, 4, 4), density=1.0) == 2).all())
        True

    Source: Deep, Bhardwaj, Poria: DELLA-Merging (2024), arXiv 2406.11617, section 3.
    """

    def together(part: Tensor) -> Tensor:
        return weighted_sum(part, weight, normalize=normalize)

    return _merge(deltas, density, epsilon, generator, rescale, together)
