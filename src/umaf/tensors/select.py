"""The k-th largest entry of every row, exactly, without sorting and without holding the rows.

A pass over the data keeps a thin sample of each row, which brackets the answer from both sides; rows that can give a
sample by themselves (`Sampled`) are spared it. A second pass counts what lies above the bracket and what equals its
bounds, and keeps what lies between them, about one entry in a hundred; the answer is a bound, or found among those.
What the sample could not tell (a bracket that missed, or more equal numbers than fit into memory) costs another pass,
never a wrong answer: the value that comes back is an entry of the row, and its rank is the one asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from umaf.errors import NumericalError

Chunks = Callable[[], Iterator[Tensor]]
"""Each call is one pass over the rows: stacks `[row, chunk]`, chunk by chunk, always in the same order."""


@dataclass(frozen=True)
class Sampled:
    """Rows that can be sampled without a pass over all of them.

    Attributes:
        whole: one pass over the rows.
        thin: one pass over pieces of them, from all over; what they are decides how fast the answer is found, not it.
        entries: of a row.

    Example:
        >>> rows = torch.arange(500_000.0)[None]
        >>> some = Sampled(lambda: iter([rows]), lambda: iter([rows[:, ::10]]), 500_000)
        >>> kth_largest(some, lambda n: [[2]])
        tensor([[499998.]])
    """

    whole: Chunks
    thin: Chunks
    entries: int

    def __call__(self) -> Iterator[Tensor]:
        """Begin a pass over the rows."""
        return self.whole()


_SAMPLE = 1 << 18  # entries per row that the first pass keeps; rows up to this length need no second pass
_ROOM = 1 << 23  # entries inside a bracket that are kept; beyond, they are counted in bins
_BINS = 1 << 16
_PIECE = 1 << 16
_RARE = 20  # a rank below one in so many is that of a large entry
_THIN = 3  # rows of matrices are rarely a multiple of its powers, so a stride does not walk down one column


Bounds = Sequence[Sequence[tuple[float, float]]]
"""Of each row and each rank that is looked for: between which numbers, both included, its entry is believed to lie."""


def kth_largest(
    chunks: Chunks,
    ranks: Callable[[int], Sequence[Sequence[int]]],
    *,
    watch: Callable[[Bounds], None] | None = None,
) -> Tensor:
    """Find the entries with given ranks in every row: rank 1 is the largest entry, rank n the smallest.

    Entries are compared as numbers: 0 and -0 are equal. Two passes are the rule, one for rows of up to 262,144
    entries; equal entries and distributions of any shape cost at most a few more.

    Args:
        chunks: the rows, as often as asked. A chunk may be overwritten once the next is asked for.
        ranks: gives the wanted ranks of each row, `[row][wanted]`, from the number of entries in a row. It is called
            after every pass over all the data, and before them, for a guess, after a thin one. Rank 0 (or less) gives
            +inf; ranks beyond n give -inf.
        watch: told the bounds before each pass that looks between them, for who wants to do something else with the
            numbers that go by. Short rows need no such pass, and bounds may turn out wrong: then another pass follows.

    Returns:
        `[row, wanted]`, in the dtype of the chunks (float32 for 16-bit floats).

    Raises:
        NumericalError: a row holds NaN, which has no rank.

    Example:
        >>> rows = torch.tensor([[3.0, 1.0, 2.0, 2.0]])
        >>> kth_largest(lambda: iter([rows]), lambda n: [[1, 2, 3, n]])
        tensor([[3., 2., 2., 1.]])
    """
    guessed = isinstance(chunks, Sampled) and chunks.entries > _SAMPLE
    if guessed:
        _, _, samples = _sample(chunks.thin)
        entries, stride = chunks.entries, chunks.entries / samples[0].size
    else:
        entries, stride, samples = _sample(chunks)
    kind = samples[0].dtype
    found = [
        [_Bracket(min(max(rank, 1), entries) if guessed else rank, entries, sample, stride) for rank in row]
        for row, sample in zip(ranks(entries), samples, strict=True)
    ]
    while any(one.answer is None for row in found for one in row):
        if watch is not None:
            watch([[(float(one.low), float(one.high)) for one in row] for row in found])
        for values in _pieces(chunks):
            for part, row in zip(values, found, strict=True):
                for one in row:
                    one.look(part)
        for row, wanted in zip(found, ranks(entries), strict=True):
            for one, rank in zip(row, wanted, strict=True):
                one.aim(rank)
                one.conclude()
    return torch.from_numpy(np.array([[one.answer for one in row] for row in found], dtype=kind))


def kth_largest_of(stack: Tensor, ranks: Sequence[Sequence[int]]) -> Tensor:
    """Find entries by rank in rows that are in memory.

    Args:
        stack: `[row, n]`.
        ranks: `[row][wanted]`, 1 for the largest.

    Example:
        >>> kth_largest_of(torch.tensor([[3.0, 1.0], [5.0, 4.0]]), [[1], [2]])
        tensor([[3.],
                [4.]])
    """
    return kth_largest(lambda: iter([stack]), lambda _: ranks)


def _pieces(chunks: Chunks) -> Iterator[np.ndarray]:
    # Pieces that stay in the cache between one comparison and the next: twice as fast as whole rows.
    for chunk in chunks():
        values = chunk.detach()
        values = values if values.dtype in (torch.float32, torch.float64) else values.float()
        array = values.cpu().numpy()
        for start in range(0, max(1, array.shape[1]), _PIECE):
            yield array[:, start : start + _PIECE]


def _sample(chunks: Chunks) -> tuple[int, int, list[np.ndarray]]:
    # Every stride-th entry of the row, thinned as the row turns out longer: no length need be known.
    entries, stride, size = 0, 1, 0
    kept: list[np.ndarray] = []
    for values in _pieces(chunks):
        part = values[:, (-entries) % stride :: stride].copy()
        entries += values.shape[1]
        size += part.shape[1]
        kept.append(part)
        if size > _SAMPLE:
            joined = np.concatenate(kept, axis=1)[:, ::_THIN].copy()
            kept, size, stride = [joined], joined.shape[1], stride * _THIN
            while size > _SAMPLE:
                kept = [kept[0][:, ::_THIN].copy()]
                size, stride = kept[0].shape[1], stride * _THIN
    return entries, stride, list(np.concatenate(kept, axis=1))


class _Bracket:
    """The search for one rank in one row: bounds that hold its value, as far as is known."""

    def __init__(self, rank: int, entries: int, sample: np.ndarray, stride: float) -> None:
        self.entries = entries
        self.kind = sample.dtype.type
        self.answer: np.floating | None = None
        self.aim(rank)
        if self.answer is None and stride == 1:
            self.answer = _nth(sample, rank)
        elif self.answer is None:
            # Five standard deviations of a sampled rank on either side, and a little for very small shares.
            share = rank / entries
            spread = 5 * np.sqrt(share * (1 - share) * sample.size) + 8
            first, last = int(share * sample.size - spread), int(share * sample.size + spread) + 1
            high = np.inf if first < 1 else _nth(sample, first)
            low = -np.inf if last > sample.size else _nth(sample, last)
            self._set(self.kind(low), self.kind(high))

    def aim(self, rank: int) -> None:
        """Say which rank is wanted; there is nothing to look for outside 1 to n."""
        self.rank = rank
        if self.answer is None and not 1 <= rank <= self.entries:
            self.answer = self.kind(np.inf if rank < 1 else -np.inf)

    def _set(self, low: np.floating, high: np.floating) -> None:
        self.low, self.high = low, high
        self.above = self.top = self.over = self.all = self.size = 0
        self.kept: list[np.ndarray] = []
        self.bins: np.ndarray | None = None

    def look(self, values: np.ndarray) -> None:
        """Count and keep what a piece of the row holds; nothing once the answer is known."""
        if self.answer is not None:
            return
        if self.rank * _RARE < self.entries:
            # Only few lie above the lower bound: nothing else need be looked at twice.
            values = values[np.flatnonzero(values >= self.low)]
        # Differences of 16-bit floats have many equal entries, and a bound that was sampled is likely to be one of
        # those values: what equals a bound is counted, and only what lies between them is kept.
        top, over = values >= self.high, values > self.low
        self.above += int(np.count_nonzero(values > self.high))
        self.top += int(np.count_nonzero(top))
        self.over += int(np.count_nonzero(over))
        self.all += int(np.count_nonzero(values >= self.low))
        if self.low == self.high:
            return
        # Adding 0 makes -0 into 0: they are one number, with two patterns of bits.
        some = values[np.flatnonzero(over != top)] + self.kind(0)
        if self.bins is not None:
            self._count(self.bins, some)
            return
        self.kept.append(some)
        self.size += some.size
        if self.size > _ROOM:
            self.bins = np.zeros(_BINS, np.int64)
            for part in self.kept:
                self._count(self.bins, part)
            self.kept = []

    def _count(self, bins: np.ndarray, some: np.ndarray) -> None:
        # Seen as unsigned, the difference is right even where it is too large for a signed number.
        offset = (_keys(some) - _key(self.low)).view(np.uint64) // np.uint64(self._width())
        bins += np.bincount(offset.astype(np.int64), minlength=_BINS)

    def _width(self) -> int:
        return -(-(_key(self.high) - _key(self.low) + 1) // _BINS)

    def conclude(self) -> None:
        """Read off the answer, or set closer or wider bounds for another pass."""
        if self.answer is not None:
            return
        if self.rank <= self.above:
            self._set(self.high, self.kind(np.inf))
        elif self.rank <= self.top:
            self.answer = self.high + self.kind(0)
        elif self.rank > self.all:
            if self.low == -np.inf:
                raise NumericalError(
                    "A row whose entries were to be ranked holds NaN; look for it in the inputs."
                )
            self._set(self.kind(-np.inf), self.low)
        elif self.rank > self.over:
            self.answer = self.low + self.kind(0)
        elif self.bins is None:
            self.answer = _nth(np.concatenate(self.kept), self.rank - self.top)
        else:
            self._narrow(self.bins)

    def _narrow(self, bins: np.ndarray) -> None:
        least = self.top + np.cumsum(bins[::-1])
        index = _BINS - 1 - int(np.searchsorted(least, self.rank))
        start = _key(self.low) + index * self._width()
        stop = min(start + self._width() - 1, _key(self.high))
        self._set(_value(start, self.kind), _value(stop, self.kind))


def _nth(values: np.ndarray, rank: int) -> np.floating:
    place = values.size - rank
    if np.isnan(values).any():
        raise NumericalError("A row whose entries were to be ranked holds NaN; look for it in the inputs.")
    return np.partition(values, place)[place] + values.dtype.type(0)


# The bits of a float, read as a whole number, are in the order of the floats once those of negative ones are turned.


def _keys(values: np.ndarray) -> np.ndarray:
    whole = values.view(np.int32 if values.dtype == np.float32 else np.int64)
    top = np.iinfo(whole.dtype)
    return (whole ^ ((whole >> (top.bits - 1)) & top.max)).astype(np.int64)


def _key(value: np.floating) -> int:
    return int(_keys(np.array([value]))[0])


def _value(key: int, kind: type) -> np.floating:
    whole = np.array([key], np.int32 if kind is np.float32 else np.int64)
    top = np.iinfo(whole.dtype)
    return (whole ^ ((whole >> (top.bits - 1)) & top.max)).view(kind)[0]
