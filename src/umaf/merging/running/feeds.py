"""Where the numbers of a merge come from: a tensor, entry by entry, as float32 in memory that the caller owns.

A feed is asked for a range of flat entries and writes them into a buffer. Whether the tensor lies in memory, on a
memory map, or has its rows in another order than the result, the one who merges does not see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from umaf.checkpoints import Checkpoint, torch_dtype
from umaf.errors import NumericalError

_ROWS = 4096


class Feed(Protocol):
    """One tensor of one model.

    Attributes:
        where: file and name of the tensor, for messages.
        numel: number of entries.
    """

    @property
    def where(self) -> str: ...
    @property
    def numel(self) -> int: ...

    def fill(self, start: int, stop: int, out: Tensor) -> None:
        """Write the flat entries from `start` up to, without, `stop` into `out` `[stop - start]`."""


@dataclass(frozen=True)
class Flat:
    """A tensor whose entries lie one after another.

    Attributes:
        flat: `[numel]`, in any dtype.
        where: file and name, for messages.

    Example:
        >>> out = torch.empty(2)
        >>> Flat(torch.arange(4, dtype=torch.bfloat16), "w").fill(1, 3, out)
        >>> out
        tensor([1., 2.])
    """

    flat: Tensor
    where: str = ""

    @property
    def numel(self) -> int:
        """Number of entries."""
        return self.flat.numel()

    def fill(self, start: int, stop: int, out: Tensor) -> None:
        """Write a range of entries into `out`."""
        out.copy_(self.flat[start:stop])

    def take(self, start: int, stop: int) -> Tensor:
        """Give a range of entries in the stored dtype; it must not be written to."""
        return self.flat[start:stop]


@dataclass(frozen=True)
class Stored:
    """A tensor of a checkpoint, read range by range, so that none of it stays in memory.

    Attributes:
        checkpoint: opened.
        name: of the tensor in it.
        where: file and name, for messages.

    Example:
        >>> from umaf.checkpoints import open_checkpoint
        >>> opened = open_checkpoint("zoo:llama-1m")
        >>> Stored(opened, "model.norm.weight").numel
        128
    """

    checkpoint: Checkpoint
    name: str
    where: str = ""

    @property
    def numel(self) -> int:
        """Number of entries."""
        return self.checkpoint.entries[self.name].numel

    def fill(self, start: int, stop: int, out: Tensor) -> None:
        """Write a range of entries into `out`."""
        self.checkpoint.fill(self.name, start, out)

    def take(self, start: int, stop: int) -> Tensor:
        """Give a range of entries in the stored dtype, in memory of its own."""
        out = torch.empty(stop - start, dtype=torch_dtype(self.checkpoint.entries[self.name].dtype))
        self.checkpoint.fill(self.name, start, out)
        return out


@dataclass(frozen=True)
class Table:
    """A table of one row per token, and where the tokens of the result are in it.

    Attributes:
        flat: `[rows * width]`, in any dtype.
        width: entries of a row; 1 for a bias.
        index: int64 `[tokens]`, -1 where this model has no such token; None: token for token.
        where: file and name, for messages.
    """

    flat: Tensor
    width: int
    index: Tensor | None
    where: str = ""

    def rows(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Give rows of the result's tokens as float32 `[token, width]`, and which of them are there `[token]`.

        Example:
            >>> Table(torch.arange(4.0), 2, torch.tensor([1, -1])).rows(0, 2)
            (tensor([[2., 3.],
                    [0., 1.]]), tensor([ True, False]))
        """
        table = self.flat.view(-1, self.width)
        if self.index is None:
            return table[first:last].float(), torch.ones(last - first, dtype=torch.bool)
        index = self.index[first:last]
        return table.index_select(0, index.clamp(min=0)).float(), index >= 0

    def row(self, number: int) -> Tensor:
        """Give one stored row as float32 `[width]`."""
        return self.flat.view(-1, self.width)[number].float()

    def mean(self) -> Tensor:
        """Give the mean of the stored rows as float32 `[width]`.

        Example:
            >>> Table(torch.arange(4.0), 2, None).mean()
            tensor([1., 2.])
        """
        table = self.flat.view(-1, self.width)
        total = torch.zeros(self.width, dtype=torch.float64)
        for part in table.split(_ROWS):
            total += part.float().sum(0, dtype=torch.float64)
        return (total / max(1, table.shape[0])).float()


@dataclass(frozen=True)
class Fallback:
    """The row of a token for the models that lack it.

    It is what `given` says; else that of the base, if the base has the token; else the mean over the models that have
    it; else the mean of all rows, of the base if there is one (rows that only pad). In a head the mean of all rows
    gives the mean of all logits, which takes no more than an even share of the probability; zeros would take most of
    it where all logits are below 0.

    Attributes:
        tables: of all models.
        base: of the base.
        given: token to (table, row), or to None for zeros.
    """

    tables: Sequence[Table]
    base: Table | None = None
    given: Mapping[int, tuple[Table, int] | None] = field(default_factory=dict)

    def rows(self, first: int, last: int) -> Tensor:
        """Give the rows of some tokens, float32 `[last - first, width]`.

        Example:
            >>> some = Table(torch.tensor([2.0]), 1, torch.tensor([0, -1]))
            >>> other = Table(torch.tensor([4.0, 8.0]), 1, torch.tensor([0, 1]))
            >>> Fallback([some, other]).rows(0, 2)
            tensor([[3.],
                    [8.]])
        """
        total = torch.zeros(last - first, self.tables[0].width)
        count = torch.zeros(last - first, 1)
        for table in self.tables:
            rows, there = table.rows(first, last)
            # The rows may be a model's own memory map, which nothing must be written to.
            total += rows * there[:, None]
            count += there[:, None]
        nobody = count[:, 0] == 0
        total /= count.clamp_(min=1)
        if self.base is not None:
            rows, there = self.base.rows(first, last)
            total = torch.where(there[:, None], rows, total)
            nobody &= ~there
        if nobody.any():
            total[nobody] = self.mean
        for token in self.given.keys() & range(first, last):
            source = self.given[token]
            total[token - first] = 0.0 if source is None else source[0].row(source[1])
        return total

    @cached_property
    def mean(self) -> Tensor:
        """The mean of all rows, float32 `[width]`: of the base, or else of the models."""
        if self.base is not None:
            return self.base.mean()
        return torch.stack([table.mean() for table in self.tables]).mean(0)


@dataclass(frozen=True)
class Aligned:
    """A table in the order of the result's tokens; rows it lacks come from a fallback.

    Attributes:
        table: the model's own.
        tokens: of the result.
        fallback: for the tokens the model lacks.

    Example:
        >>> table = Table(torch.tensor([1.0, 2.0]), 1, torch.tensor([1, 0, -1]))
        >>> out = torch.empty(3)
        >>> Aligned(table, 3, Fallback([table])).fill(0, 3, out)
        >>> out
        tensor([2.0000, 1.0000, 1.5000])
    """

    table: Table
    tokens: int
    fallback: Fallback

    @property
    def where(self) -> str:
        """File and name of the tensor."""
        return self.table.where

    @property
    def numel(self) -> int:
        """Number of entries in the result."""
        return self.tokens * self.table.width

    def fill(self, start: int, stop: int, out: Tensor) -> None:
        """Write a range of entries into `out`."""
        width = self.table.width
        first, last = start // width, -(-stop // width)
        rows, there = self.table.rows(first, last)
        if not there.all():
            rows = torch.where(there[:, None], rows, self.fallback.rows(first, last))
        out.copy_(rows.view(-1)[start - first * width : stop - first * width])


def blame(feeds: Sequence[Feed], start: int, stop: int) -> None:
    """Look in a range of entries for the one that is no number.

    Raises:
        NumericalError: an entry is NaN or infinite; says in which file and tensor, and where.

    Example:
        >>> blame([Flat(torch.ones(2), "w")], 0, 2)
    """
    room = torch.empty(stop - start)
    for feed in feeds:
        feed.fill(start, stop, room)
        bad = torch.isfinite(room).logical_not_()
        if bad.any():
            place = int(bad.nonzero()[0])
            kind = "NaN" if torch.isnan(room[place]) else "infinity"
            raise NumericalError(
                f"{feed.where} holds {kind} (entry {start + place} of {feed.numel}, and {int(bad.sum()) - 1} more near "
                "it); repair or leave out that model."
            )
