"""What other modules of the adaptation benchmark measure: figures and numbers, kept until the summary reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from umaf.evaluation.record import plain
from umaf.evaluation.summary import Figure
from umaf.files import write_json

PLACE = Path(__file__).resolve().parents[1] / "out" / "adapt" / "parts"


def keep_part(name: str, *, figures: Mapping[str, Figure], numbers: Mapping[str, Any]) -> None:
    """Keep what a part measured, in place of what it measured before.

    Args:
        name: the part, such as "unseen".
        figures: headline numbers under the names they have in the summary.
        numbers: everything else, nested, for the record.
    """
    shown = {key: vars(figure) for key, figure in figures.items()}
    write_json(PLACE / f"{name}.json", plain({"figures": shown, "numbers": numbers}))


def kept_parts() -> tuple[dict[str, Figure], dict[str, Any]]:
    """Give the figures and the numbers of every part that was measured."""
    figures: dict[str, Figure] = {}
    numbers: dict[str, Any] = {}
    for path in sorted(PLACE.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        figures |= {key: Figure(**figure) for key, figure in found["figures"].items()}
        numbers[path.stem] = found["numbers"]
    return figures, numbers
