"""A run's folder, read while it runs or after it ended."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umaf.errors import ConfigError
from umaf.monitor.stream import METRICS, RUN

_OWN = frozenset(("time", "job", "step", "alarm"))


@dataclass(frozen=True)
class Run:
    """What is known of a run.

    Attributes:
        name: what runs.
        state: "running", "done", "failed", or "stopped" where it ended without saying so.
        started: UTC, ISO 8601; "" where nobody said.
        ended: the same; None while it runs.
        error: why it failed; None where it did not.
        curves: job -> metric -> (steps, values), NaN where a number was none.
        alarms: what looked wrong, in order.
        seconds: between the first line and the last.
        about: all of `run.json`.
    """

    name: str
    state: str
    started: str
    ended: str | None
    error: str | None
    curves: Mapping[str, Mapping[str, tuple[list[int], list[float]]]]
    alarms: tuple[str, ...]
    seconds: float
    about: Mapping[str, Any]


def read_run(place: str | Path) -> Run:
    """Read a run.

    Args:
        place: its folder, or a `metrics.jsonl` of any origin.

    Raises:
        ConfigError: there is none, or a line in the middle of it is not what a monitor writes.

    Example: see `Monitor`.
    """
    path = Path(place)
    folder, file = (path, path / METRICS) if path.is_dir() else (path.parent, path)
    if not file.is_file():
        raise ConfigError(
            f"The run {place} was asked for, but there is no {METRICS} in it; name a folder that --monitor wrote."
        )
    rows = _rows(file)
    about = _about(folder / RUN)
    curves: dict[str, dict[str, tuple[list[int], list[float]]]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in _OWN and (value is None or isinstance(value, int | float)):
                steps, values = curves.setdefault(str(row["job"]), {}).setdefault(name, ([], []))
                steps.append(int(row["step"]))
                values.append(float("nan") if value is None else float(value))
    times = [row["time"] for row in rows]
    return Run(
        str(about.get("name") or folder.name),
        _state(about),
        str(about.get("started") or ""),
        about.get("ended"),
        about.get("error"),
        curves,
        tuple(str(row["alarm"]) for row in rows if "alarm" in row),
        times[-1] - times[0] if times else 0.0,
        about,
    )


def _rows(file: Path) -> list[dict[str, Any]]:
    """Read whole lines; the last may be half written while the job runs."""
    lines = file.read_text(encoding="utf-8").split("\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                row = json.loads(line)
                rows.append({"time": float(row["time"]), "job": row["job"], "step": int(row["step"]), **row})
        except (ValueError, KeyError, TypeError) as problem:
            if number == len(lines):
                break
            raise ConfigError(
                f"The run file {file} was asked for, but its line {number} is not a monitor's ({problem}); name a "
                f"{METRICS} that --monitor wrote."
            ) from problem
    return rows


def _about(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _state(about: Mapping[str, Any]) -> str:
    state = str(about.get("state") or "done")
    if state == "running" and not _lives(about.get("process")):
        return "stopped"
    return state


def _lives(process: Any) -> bool:
    """Ask whether a process of this machine is there; where nobody can say, it is taken to be."""
    if not isinstance(process, int) or os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
