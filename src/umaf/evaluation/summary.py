"""The headline figures of an experiment, in one flat file that people and scripts can read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from umaf.errors import ConfigError
from umaf.evaluation.record import plain
from umaf.files import write_json


@dataclass(frozen=True)
class Figure:
    """One headline number: what was measured, how sure it is, and what was hoped for.

    Attributes:
        value: the number; NaN where nothing could be measured.
        low: lower end of its 95% interval.
        high: upper end of its 95% interval.
        n: how many texts, cells or groups it rests on.
        aim: what was aimed at, as a number or in words (">= 0.70"), or None.

    Example:
        >>> Figure(0.72, 0.66, 0.78, n=48, aim=">= 0.70").aim
        '>= 0.70'
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    aim: float | str | None = None


def write_summary(path: str | Path, figures: Mapping[str, Figure]) -> None:
    """Write figures as flat JSON, `{name: {value, low, high, n, aim}}`; NaN becomes null.

    Args:
        path: the file to write; it is whole or not there.
        figures: the numbers by name, for instance `recovery.solve.functions`.

    Raises:
        OutputError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "summary.json"
        >>> write_summary(file, {"cells": Figure(48, n=48)})
        >>> read_summary(file)["cells"].value
        48
    """
    write_json(Path(path), plain({name: asdict(figure) for name, figure in figures.items()}))


def read_summary(path: str | Path) -> dict[str, Figure]:
    """Read what `write_summary` wrote.

    Args:
        path: the file.

    Returns:
        The figures by name, in the file's order.

    Raises:
        ConfigError: the file is not there, is not JSON, or holds something else.

    Example: see `write_summary`.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return {name: Figure(**figure) for name, figure in content.items()}
    except (OSError, ValueError, TypeError, AttributeError) as problem:
        raise ConfigError(
            f"Asked to read a summary from {path}, found no file of figures ({problem}); pass a "
            f"file that write_summary wrote."
        ) from problem
