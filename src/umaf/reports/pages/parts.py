"""Pieces that the pages of several kinds share."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from umaf.errors import ConfigError
from umaf.evaluation.record import Record
from umaf.evaluation.statistics import Interval
from umaf.reports.blocks import Block, Cell, Command, Provenance, Section
from umaf.reports.known import Found

_LEFT_OUT = frozenset(("allow_pickle", "trust_remote_code", "monitor", "evaluate_limit", "engine", "workers"))
_DEFAULTS: Mapping[str, Any] = {
    "seed": 0, "device": "cpu", "dtype": "float32", "split": "test", "rank": 8, "route": "solve",
    "extractor": "pca", "scaling": "identity", "fusion": "weighted", "shard_size": "5GB",
}  # fmt: skip


def record_of(found: Found) -> Record:
    """Read a record again, now that its kind is known.

    Raises:
        ConfigError: a part of it is missing or wrong.
    """
    try:
        return Record.model_validate(found.data)
    except ValueError as problem:
        why = " ".join(str(problem).split())[:160]
        raise ConfigError(
            f"The record {found.path} was asked for, but it is not whole ({why}); make it again."
        ) from problem


def measured(row: Any) -> Interval | None:
    """Read `{value, low, high, n}`; None where there is no number.

    Example:
        >>> measured({"value": 0.5, "low": 0.4, "high": None, "n": 9}).value, measured(None) is None
        (0.5, True)
    """
    if not isinstance(row, Mapping) or not isinstance(row.get("value"), int | float):
        return None

    def end(key: str) -> float:
        value = row.get(key)
        return float(value) if isinstance(value, int | float) else float("nan")

    return Interval(float(row["value"]), end("low"), end("high"), int(row.get("n") or 0))


def command_line(name: str, config: Mapping[str, Any], *, places: Sequence[str] = ()) -> str:
    """Write the command that a record's settings stand for; what is at its default is left out.

    Args:
        name: of the command.
        config: as the record keeps it: paths have lost all but their last part.
        places: settings that are typed without a flag, in their order.

    Example:
        >>> config = {"model": ["a", "b"], "task": ["t"], "limit": 5, "seed": 0, "adapter": []}
        >>> command_line("evaluate", config, places=["model"])
        'umaf evaluate a b --task t --limit 5'
    """
    words = ["umaf", name]
    for key in places:
        value = config.get(key)
        words += [
            str(one) for one in (value if isinstance(value, list | tuple) else [value]) if one is not None
        ]
    for key, value in config.items():
        if key in places or key in _LEFT_OUT or value in (None, False, [], ()) or _DEFAULTS.get(key) == value:
            continue
        flag = f"--{key.replace('_', '-')}"
        if value is True:
            words.append(flag)
            continue
        for one in value if isinstance(value, list | tuple) else [value]:
            words += [flag, ",".join(map(str, one)) if isinstance(one, list | tuple) else str(one)]
    return shlex.join(words)


def again(found: Found, command: str, *, note: str = "", files: Mapping[str, str] | None = None) -> Section:
    """The last section of a record: the command, and where the numbers come from."""
    about = note or "Names of files and folders are as the record keeps them, without the folders above them."
    blocks: list[Block] = [Command(command, about)] if command else []
    return Section("How to do it again", [*blocks, Provenance(record_of(found), files or {})])


def fraction(value: Any, *, digits: int = 3) -> Cell:
    """Write a number for a table; None for what is none.

    Example:
        >>> fraction(0.12345), fraction(None)
        ('0.123', None)
    """
    return f"{value:.{digits}f}" if isinstance(value, int | float) else None


def words_of(data: Mapping[str, Any], keys: Sequence[str]) -> list[list[Cell]]:
    """Give rows of a two-column table: a word and what stands for it, where anything does."""
    rows: list[list[Cell]] = []
    for key in keys:
        value = data.get(key)
        if value not in (None, "", [], {}):
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            rows.append([key.replace("_", " "), text])
    return rows
