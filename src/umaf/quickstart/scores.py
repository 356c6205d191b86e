"""Who answers how many held-out texts rightly, and how much of the oracle's gain arrived."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from umaf.evaluation.evaluate import Score, Split, evaluate
from umaf.evaluation.statistics import Bootstrap, Interval, recovery_interval
from umaf.models import Model
from umaf.quickstart.material import Expert
from umaf.quickstart.plan import Plan

LEVELS: dict[str, Split] = {"new sentences": "validation", "new words and patterns": "test"}
"""How far from the training texts: new sentences of known patterns and words, or patterns and words never seen."""

ADAPTED = ("solve", "distill", "generate")


@dataclass(frozen=True)
class Cell:
    """One capability at one level.

    Attributes:
        capability: its short name.
        level: a key of `LEVELS`.
        chance: the score of guessing.
        scores: by who answered: source, bare, solve, distill, generate, oracle.
        recovery: by route; None where the oracle gains too little for it to mean anything.
    """

    capability: str
    level: str
    chance: float
    scores: Mapping[str, Score]
    recovery: Mapping[str, Interval | None]


def measure(experts: Sequence[Expert], targets: Mapping[str, Model], plan: Plan) -> list[Cell]:
    """Ask the sources and every form of the target each capability's held-out texts.

    Args:
        experts: those that give their capability are asked.
        targets: bare, solve, distill, generate and oracle.
        plan: how many texts.

    Returns:
        One cell per level and capability.
    """
    cells = []
    for level, split in LEVELS.items():
        for expert in (one for one in experts if one.source):
            asked = {"source": expert.model, **targets}
            scores = {
                name: evaluate(model, expert.task, split=split, limit=plan.tests, seed=plan.seed)
                for name, model in asked.items()
            }
            recovered = {
                route: recovery_interval(
                    *(scores[name].correct for name in (route, "bare", "oracle")),
                    bootstrap=Bootstrap(seed=plan.seed),
                )
                for route in ADAPTED
            }
            chance = 1 / len(expert.task.labels)
            cells.append(Cell(expert.short, level, chance, scores, recovered))
    return cells


def better_route(cells: Sequence[Cell]) -> str:
    """Choose the route whose adapter is kept, on new sentences alone: the harder texts choose nothing.

    `solve` wins a tie, because it changes the target less.
    """
    means = {route: mean_score(cells, route, next(iter(LEVELS))) for route in ADAPTED}
    return max(ADAPTED, key=lambda route: means[route])


def mean_score(cells: Sequence[Cell], name: str, level: str) -> float:
    """Average a form's share of right answers over the capabilities of a level."""
    return float(np.mean([cell.scores[name].value for cell in cells if cell.level == level]))


def mean_recovery(cells: Sequence[Cell], route: str, level: str) -> float | None:
    """Average recovery over the capabilities of a level; None where none has one.

    Example:
        >>> mean_recovery([], "solve", "new sentences") is None
        True
    """
    found = [cell.recovery[route] for cell in cells if cell.level == level]
    values = [one.value for one in found if one is not None]
    return float(np.mean(values)) if values else None


def numbers_of(cells: Sequence[Cell]) -> dict[str, Any]:
    """Nest the scores and recoveries for a record: level, capability, who."""
    found: dict[str, Any] = {level: {} for level in LEVELS}
    for cell in cells:
        rows: dict[str, Any] = {name: _row(score) for name, score in cell.scores.items()}
        for route, interval in cell.recovery.items():
            rows[route]["recovery"] = None if interval is None else _row(interval)
        found[cell.level][cell.capability] = rows
    return found


def _row(one: Score | Interval) -> dict[str, Any]:
    return {name: getattr(one, name) for name in ("value", "low", "high", "n")}
