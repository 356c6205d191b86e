"""What a quickstart found, as values: its page and its command print them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from umaf.evaluation.record import Record
from umaf.extraction import Fingerprint
from umaf.quickstart.plan import Plan
from umaf.quickstart.scores import Cell
from umaf.quickstart.writing import Written


@dataclass(frozen=True)
class Compared:
    """Fingerprints side by side.

    Attributes:
        names: of the models.
        capabilities: short names, one per model.
        architectures: one per model.
        fingerprints: one per model, all from the same probes.
        table: their cosines, `[model, model]`.
    """

    names: tuple[str, ...]
    capabilities: tuple[str, ...]
    architectures: tuple[str, ...]
    fingerprints: tuple[Fingerprint, ...]
    table: Tensor


@dataclass(frozen=True)
class Outcome:
    """What a quickstart found.

    Attributes:
        plan: what was done.
        compared: the fingerprints.
        cells: scores and recoveries.
        route: the better route, whose adapter was kept.
        bits: bits per byte of plain text, by form of the target.
        answers: what the target answers before and after.
        prose: what it writes unasked before and after.
        record: everything measured.
        seconds: wall time.
        out: the folder.
    """

    plan: Plan
    compared: Compared
    cells: tuple[Cell, ...]
    route: str
    bits: dict[str, float]
    answers: tuple[Written, ...]
    prose: tuple[Written, ...]
    record: Record
    seconds: float
    out: Path
