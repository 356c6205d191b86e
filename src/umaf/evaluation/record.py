"""Records: one measured result as JSON, with all that is needed to measure it again.

A record never says where it was made: no host name, no user, no folder. What it does say of the
machine (cores, processor, memory) is what a time needs in order to mean something.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path, PurePath
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from umaf.errors import ConfigError
from umaf.evaluation.provenance import Commit, Machine, commit, machine, versions
from umaf.files import write_json


class Record(BaseModel):
    """One measured result.

    Attributes:
        kind: what was measured, for instance "transfer".
        config: the settings it ran with.
        seed: the run's seed.
        versions: of python, umaf, torch, transformers, peft and numpy.
        machine: cores, processor, memory.
        commit: the project's git commit, None outside a checkout.
        started: when it began, UTC, ISO 8601.
        numbers: the results, nested as the measurement wants; NaN is written as null.

    Example:
        >>> new_record("evaluate", config={"task": "made/tense"}, numbers={"accuracy": 0.9}).seed
        0
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    config: dict[str, Any]
    seed: int
    versions: dict[str, str | None]
    machine: Machine
    commit: Commit | None
    started: str
    numbers: dict[str, Any]

    @field_validator("started")
    @classmethod
    def _is_a_time(cls, value: str) -> str:
        datetime.fromisoformat(value)
        return value


def new_record(
    kind: str,
    *,
    config: Mapping[str, Any],
    numbers: Mapping[str, Any],
    seed: int = 0,
    started: datetime | None = None,
) -> Record:
    """Make a record of a measurement on this machine, now.

    Args:
        kind: what was measured.
        config: the settings; of a path only its last part is kept, so that no record tells how
            somebody's disk is laid out.
        numbers: the results, nested.
        seed: the run's seed.
        started: when the run began; now, if not given.

    Returns:
        The record, not yet written.

    Example:
        >>> new_record("evaluate", config={"out": Path("/home/me/out")}, numbers={}).config
        {'out': 'out'}
    """
    moment = (started or datetime.now(timezone.utc)).astimezone(timezone.utc)
    return Record(
        kind=kind,
        config=_without_places(plain(config)),
        seed=seed,
        versions=versions(),
        machine=machine(),
        commit=commit(),
        started=moment.isoformat(timespec="seconds"),
        numbers=plain(numbers),
    )


def write_record(path: str | Path, record: Record) -> None:
    """Write a record as JSON; the file is whole or not there.

    Args:
        path: the file to write.
        record: what was measured.

    Raises:
        OutputError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "record.json"
        >>> write_record(file, new_record("evaluate", config={}, numbers={"accuracy": 0.9}))
        >>> read_record(file).numbers
        {'accuracy': 0.9}
    """
    write_json(Path(path), plain(record.model_dump()))


def read_record(path: str | Path) -> Record:
    """Read and check a record.

    Args:
        path: a file that `write_record` wrote.

    Returns:
        The record.

    Raises:
        ConfigError: the file is not there, is not JSON, or lacks, adds or misuses a key.

    Example: see `write_record`.
    """
    try:
        return Record.model_validate(json.loads(Path(path).read_text(encoding="utf-8")))
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(
            f"Asked to read a record from {path}, found a fault at {where} "
            f"({first['msg'].lower()}); pass a file that write_record wrote."
        ) from problem
    except (OSError, ValueError) as problem:
        raise ConfigError(
            f"Asked to read a record from {path}, found no readable JSON file ({problem}); pass a "
            f"file that write_record wrote."
        ) from problem


def plain(data: Any) -> Any:
    """Turn nested data into what JSON can hold, with null for NaN and infinity.

    JSON has no NaN; writers that emit it anyway make files other languages cannot read.

    Args:
        data: nested dicts, sequences, numbers (numpy's and torch's single numbers too), paths.

    Returns:
        The same with dicts, lists, strings, numbers, booleans and None only.

    Example:
        >>> plain({"a": float("nan"), "b": (1, 2.5)})
        {'a': None, 'b': [1, 2.5]}
    """
    if isinstance(data, Mapping):
        return {str(key): plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple | set | frozenset):
        items = sorted(data, key=repr) if isinstance(data, set | frozenset) else data
        return [plain(value) for value in items]
    if isinstance(data, PurePath):
        return data.as_posix()
    if data is None or isinstance(data, bool | int | str):
        return data
    if isinstance(data, float):
        return float(data) if math.isfinite(data) else None
    # numpy and torch: arrays and tensors become lists, single numbers become numbers.
    if callable(getattr(data, "tolist", None)):
        return plain(data.tolist())
    return str(data)


def _without_places(data: Any) -> Any:
    """Keep only the last part of every absolute path in a config."""
    if isinstance(data, dict):
        return {key: _without_places(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_without_places(value) for value in data]
    if isinstance(data, str) and PurePath(data).is_absolute() and "\n" not in data:
        return PurePath(data).name or "/"
    return data
