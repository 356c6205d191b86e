"""Dropping entries by chance: which stay, and how what is left is rescaled."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from umaf.merging.contract import PerModel
from umaf.merging.parts import l1, per_model

RESOLUTION = 1 << 16
"""Chances are rounded to multiples of 1/65536, the range of the random numbers that are drawn."""

Rescale = Literal["unbiased", "l1", "none"]


def drop(
    stack: Tensor,
    density: PerModel,
    *,
    generator: np.random.Generator | None = None,
    rescale: Rescale = "unbiased",
) -> Tensor:
    """Keep each entry by chance, and rescale what is left.

    Chances are multiples of 1/65536 (a density of 0.1 is 6554/65536 = 0.100006), and the rescaling is by the chance
    that was really used, so the expected value is exact.

    Args:
        stack: `[model, *shape]`.
        density: chance that an entry stays, in (0, 1].
        generator: where the chance comes from; None draws the same numbers in every call.
        rescale: "unbiased" divides by the chance, so that the expected value is the entry; "l1" gives what is left
            the sum of magnitudes that all had (of the stack that is handed over); "none" does not rescale.

    Returns:
        A new stack.

    Example:
        >>> one = drop(torch.ones(1, 100_000), 0.25)
        >>> sorted(set(one.flatten().tolist())), round(float(one.mean()), 1)
        ([0.0, 4.0], 1.0)
    """
    generator = generator if generator is not None else fixed_generator()
    out = torch.empty_like(stack)
    rows = zip(stack.unbind(0), per_model(density, stack.shape[0]), out.unbind(0), strict=True)
    for row, share, target in rows:
        drop_row(row, share, target, generator=generator, rescale=rescale)
    return out


def drop_row(
    row: Tensor, density: float, target: Tensor, *, generator: np.random.Generator, rescale: Rescale
) -> Tensor:
    """Do what `drop` does to one model's entries, into memory that is there.

    Args:
        row: `[*shape]`.
        density: chance that an entry stays, in (0, 1].
        target: `[*shape]`.
        generator: where the chance comes from.
        rescale: see `drop`.

    Returns:
        The target.

    Example:
        >>> drop_row(torch.ones(2), 1.0, torch.empty(2), generator=fixed_generator(), rescale="none")
        tensor([1., 1.])
    """
    chance = ticks(density)
    if chance == RESOLUTION:
        return target.copy_(row)
    masked(row, stays(generator, row.numel(), chance), target)
    if rescale == "unbiased":
        target.mul_(RESOLUTION / chance)
    elif rescale == "l1":
        match_l1(target, row)
    return target


def fixed_generator() -> np.random.Generator:
    """Give a generator that starts at the same place every time.

    Example:
        >>> bool(fixed_generator().integers(100) == fixed_generator().integers(100))
        True
    """
    return np.random.Generator(np.random.SFC64(0))


def draw(generator: np.random.Generator, entries: int) -> np.ndarray:
    """Draw whole numbers from [0, 65536), four from each 64 random bits.

    Example:
        >>> draw(fixed_generator(), 5).dtype, draw(fixed_generator(), 5).shape
        (dtype('uint16'), (5,))
    """
    bits = generator.integers(0, (1 << 64) - 1, size=-(-entries // 4), dtype=np.uint64, endpoint=True)
    return bits.astype("<u8", copy=False).view("<u2")[:entries]


def stays(generator: np.random.Generator, entries: int, chance: int) -> np.ndarray:
    """Draw which entries stay, each with the same chance.

    A number from [0, 65536) is below the chance if its upper eight bits are below the chance's, or equal to them and
    the lower ones below: only one entry in 256 needs these, and none where the chance's are 0.

    Args:
        generator: where the chance comes from.
        entries: how many.
        chance: in units of 1/65536, below 65536.

    Returns:
        Flags `[entries]`.

    Example:
        >>> round(float(stays(fixed_generator(), 100_000, 16_500).mean()), 2)
        0.25
    """
    upper, lower = divmod(chance, 256)
    drawn = _bytes(generator, entries)
    found = drawn < upper
    if lower:
        close = np.flatnonzero(drawn == upper)
        found[close] = _bytes(generator, close.size) < lower
    return found


def _bytes(generator: np.random.Generator, entries: int) -> np.ndarray:
    bits = generator.integers(0, (1 << 64) - 1, size=-(-entries // 8), dtype=np.uint64, endpoint=True)
    return bits.astype("<u8", copy=False).view(np.uint8)[:entries]


def ticks(chance: float) -> int:
    """Give a chance in units of 1/65536, at least one.

    Example:
        >>> ticks(0.5), ticks(0.0)
        (32768, 1)
    """
    return min(RESOLUTION, max(1, round(chance * RESOLUTION)))


def masked(row: Tensor, mask: np.ndarray, target: Tensor) -> None:
    """Write a row into `target`, which is other memory, with zeros where the flat mask is false.

    Example:
        >>> out = torch.empty(2)
        >>> masked(torch.tensor([3.0, 4.0]), np.array([True, False]), out)
        >>> out
        tensor([3., 0.])
    """
    # torch makes numbers of bytes at the speed of memory; of booleans, or in the product itself, ten times slower.
    target.copy_(torch.from_numpy(mask.view(np.uint8).reshape(row.shape))).mul_(row)


def match_l1(target: Tensor, row: Tensor) -> None:
    """Scale `target` in place so that the sum of its magnitudes is that of `row`; zeros stay zeros.

    Example:
        >>> out = torch.tensor([1.0, 0.0])
        >>> match_l1(out, torch.tensor([1.0, -2.0]))
        >>> out
        tensor([3., 0.])
    """
    before, after = l1(row), l1(target)
    if after > 0:
        target.mul_(before / after)
