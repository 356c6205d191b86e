"""The store: one LanceDB table of entries, at a folder or at any address that LanceDB opens."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from umaf.errors import StoreError
from umaf.index.commits import lost_a_race, said, turn
from umaf.index.entry import FETCHED, SHOWN, Entry, entry_of, row_of, schema, shown
from umaf.index.space import Space

# From this many rows on, search goes through an index of cells (Iceberg: below, brute force is fast enough).
EXACT = 100_000
ATTEMPTS = 30
# A table of many small pieces is slow to read.
PIECES = 64
Value = TypeVar("Value")


@dataclass(frozen=True)
class Outline:
    """What a search has to know of a store.

    Attributes:
        count: entries.
        cells: columns that have an index of cells.
        recall: what was measured when the cells were made.
        whole: columns of vectors that every entry has.
        kinds: whether fingerprints tell a difference to a base; both values where some do and some do not.
    """

    count: int
    cells: frozenset[str]
    recall: float | None
    whole: frozenset[str] = frozenset()
    kinds: frozenset[bool] = frozenset()


class Store:
    """An opened store. See `umaf.index.opening` for how one is opened or made.

    Writes are commits of Lance: a reader sees all of a write or nothing, and a process that is killed leaves the
    version before. Writers on one machine take turns by a lock file, which the system frees when its holder dies;
    writers at an address such as s3:// try again when another commit came first.
    """

    def __init__(self, place: str, table: Any, about: Any, space: Space) -> None:
        self.place = place
        self.space = space
        self._table = table
        self._about = about
        self._known, self._seen = Outline(0, frozenset(), None), (-1, -1)

    def __len__(self) -> int:
        """Count the entries."""
        return self._read(lambda: self._table.count_rows())

    def outline(self) -> Outline:
        """Say what a search has to know; asked again only where something was written since."""
        seen = self._read(lambda: (self._table.version, self._about.version))
        if seen != self._seen:
            cells = {column for one in self._read(self._table.list_indices) for column in one.columns}
            cells &= {"fingerprint", "answers"}
            noted = self.noted("recall") if cells else None
            recall = json.loads(noted)["recall"] if noted else None
            count, without = (
                len(self),
                {name: self._count(f"has_{name} = false") for name in ("fingerprint", "answers")},
            )
            changes = self._count("has_fingerprint = true AND difference = true")
            plain = count - without["fingerprint"] - changes
            self._known = Outline(
                count,
                frozenset(cells),
                recall,
                frozenset(name for name, missing in without.items() if not missing),
                frozenset(kind for kind, many in ((True, changes), (False, plain)) if many),
            )
            self._seen = seen
        return self._known

    def _count(self, where: str) -> int:
        return self._read(lambda: self._table.count_rows(where))

    def put(self, entries: Sequence[Entry]) -> None:
        """Add entries, in one commit; one whose key is there already is replaced.

        Raises:
            StoreError: the store cannot be written.
        """
        if not entries:
            return
        import pyarrow as pa

        # Two rows of one key in one batch would both stay.
        rows = list({entry.key: row_of(entry) for entry in entries}.values())
        batch = pa.Table.from_pylist(rows, schema=schema())
        self._commit(
            lambda: (
                self._table.merge_insert("key")
                .when_matched_update_all()
                .when_not_matched_insert_all()
                .execute(batch)
            )
        )

    def remove(self, keys: Sequence[str]) -> int:
        """Remove entries by their keys, in one commit; say how many there were."""
        if not keys:
            return 0
        listed = ", ".join(quoted(key) for key in keys)
        before = len(self)
        self._commit(lambda: self._table.delete(f"key IN ({listed})"))
        return before - len(self)

    def keys(self) -> set[str]:
        """Give the keys of all entries."""
        return {row["key"] for row in self.rows(columns=["key"])}

    def rows(
        self, where: str | None = None, *, columns: Sequence[str] | None = None, limit: int | None = None
    ) -> list[dict[str, Any]]:
        """Read rows as plain mappings.

        Args:
            where: a condition on the card, such as "architecture = 'llama' AND parameters < 2000000".
            columns: which ones; all but the vectors when not given.
            limit: at most so many.

        Raises:
            StoreError: the condition cannot be understood.
        """
        wanted = list(columns) if columns is not None else list(SHOWN)

        def read() -> list[dict[str, Any]]:
            asked = self._table.search().select(wanted).limit(limit or max(1, self._table.count_rows()))
            return (asked.where(where) if where else asked).to_list()

        return self._read(read)

    def entries(self, where: str | None = None, *, limit: int | None = None) -> list[Entry]:
        """Read whole entries, fingerprints included."""
        names = [field.name for field in schema()]
        return [entry_of(row) for row in self.rows(where, columns=names, limit=limit)]

    def vectors(self, where: str | None = None, *, column: str = "fingerprint") -> tuple[list[str], Tensor]:
        """Read the keys and one column of vectors `[entry, number]` of the entries that have it."""
        condition = both(f"has_{column} = true", where)

        def read() -> tuple[list[str], Tensor]:
            count = max(1, self._table.count_rows())
            found = self._table.search().where(condition).select(["key", column]).limit(count).to_arrow()
            flat = found[column].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            width = schema().field(column).type.list_size
            rows = np.array(flat, dtype=np.float32).reshape(-1, width)
            return found["key"].to_pylist(), torch.from_numpy(rows)

        return self._read(read)

    def nearest(
        self,
        vector: Tensor,
        *,
        column: str = "fingerprint",
        where: str | None = None,
        limit: int = 10,
        exact: bool | None = None,
    ) -> list[dict[str, Any]]:
        """Find the entries whose vectors have the largest cosine with one.

        Args:
            vector: `[512]`, or `[1024]` for the column "answers".
            column: "fingerprint" or "answers".
            where: a condition on the card.
            limit: how many.
            exact: look at every entry; None does so unless the store has an index of cells.

        Returns:
            The columns of `SHOWN` and "similarity", best first.
        """
        query = vector.flatten().float().numpy()
        if not np.any(query):
            return []
        through = not exact if exact is not None else self.approximate(column)
        has = None if column in self.outline().whole else f"has_{column} = true"
        condition = both(has, where)

        def read() -> list[dict[str, Any]]:
            asked = self._table.search(query, vector_column_name=column, query_type="vector")
            asked = asked.distance_type("cosine")
            # A condition costs a look at every entry, so there is none where it would leave nothing out.
            asked = asked.where(condition, prefilter=True) if condition else asked
            if through:
                asked = asked.nprobes(PROBED).refine_factor(REFINED)
            else:
                asked = asked.bypass_vector_index()
            return asked.select([*FETCHED, "_distance"]).limit(limit).to_list()

        found = [{**shown(row), "similarity": 1.0 - row["_distance"]} for row in self._read(read)]
        return [row for row in found if row["similarity"] == row["similarity"]]

    def approximate(self, column: str = "fingerprint") -> bool:
        """Say whether searches go through an index of cells."""
        return column in self.outline().cells

    def note(self, name: str, text: str) -> None:
        """Keep a short text beside the entries."""
        import pyarrow as pa

        batch = pa.table({"name": [name], "text": [text]})
        self._commit(
            lambda: (
                self._about.merge_insert("name")
                .when_matched_update_all()
                .when_not_matched_insert_all()
                .execute(batch)
            )
        )

    def noted(self, name: str) -> str | None:
        """Read a text that `note` kept."""
        found = self._read(lambda: self._about.search().where(f"name = {quoted(name)}").limit(1).to_list())
        return found[0]["text"] if found else None

    def tidy(self) -> None:
        """Join the small pieces that many additions leave; does nothing where there are few."""
        if self._read(lambda: self._table.stats())["fragment_stats"]["num_fragments"] > PIECES:
            self._commit(lambda: self._table.optimize())

    def divide(self, cells: int, *, column: str = "fingerprint") -> None:
        """Make the index of cells for a column: k-means cells of vectors kept in 8 bits a number.

        What every search asks of an entry, whether it has the vector and of which kind it is, is kept as bits.
        """
        from lancedb.index import Bitmap, IvfSq

        config = IvfSq(distance_type="cosine", num_partitions=cells, sample_rate=64, max_iterations=20)
        self._commit(lambda: self._table.create_index(column, config=config, replace=True))
        for flag in (f"has_{column}", "difference"):
            self._commit(lambda flag=flag: self._table.create_index(flag, config=Bitmap(), replace=True))

    def _commit(self, write: Callable[[], object]) -> None:
        """Write under the lock, and again where another commit came first."""
        for attempt in range(ATTEMPTS):
            try:
                with turn(self.place):
                    write()
                return
            except (RuntimeError, OSError, ValueError) as problem:
                if attempt + 1 == ATTEMPTS or not lost_a_race(problem):
                    raise StoreError(
                        f"The store {self.place} cannot be written ({said(problem)}); check the address and "
                        "your rights there, and run the command again."
                    ) from problem
            time.sleep(random.uniform(0, min(2.0, 0.05 * 2**attempt)))

    def _read(self, read: Callable[[], Value]) -> Value:
        try:
            return read()
        except (RuntimeError, OSError, ValueError) as problem:
            text = said(problem)
            if "No field named" in text or "sql" in text.lower() or "expr" in text.lower():
                reason = (*re.findall(r"No field named [^.]+", text), "it is no SQL")[0]
                columns = ", ".join(SHOWN)
                raise StoreError(
                    f"The condition cannot be understood ({reason}); write one on the columns {columns}, "
                    "such as \"architecture = 'llama' AND parameters < 2000000\"."
                ) from problem
            raise StoreError(
                f"The store {self.place} cannot be read ({text}); run `umaf index verify` on it."
            ) from problem


# Cells looked into per query, and how many times more candidates are compared in full.
PROBED, REFINED = 12, 2


def both(first: str | None, second: str | None) -> str | None:
    """Join two conditions, of which either may be missing.

    Example:
        >>> both("layers > 2", None), both("layers > 2", "width = 64")
        ('layers > 2', '(layers > 2) AND (width = 64)')
    """
    given = [one for one in (first, second) if one]
    return given[0] if len(given) == 1 else " AND ".join(f"({one})" for one in given) or None


def quoted(text: str) -> str:
    """Write a text as a condition takes it.

    Example:
        >>> quoted("it's")
        "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"
