"""Running and finished jobs: their curves, and what looked wrong. Experts show their training the same way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from umaf.monitor.read import read_run
from umaf.reports.blocks import Block, Cell, Command, Gallery, Paragraph, Picture, Section, Table, Tile, Tiles
from umaf.reports.curves import Curve, training_curves
from umaf.reports.known import Found
from umaf.reports.pages.parts import words_of
from umaf.reports.theme import PALETTE

_NO_CURVE = ("texts",)
"""Counts that say how far a job is: a straight line, and nothing to see."""


def monitor(found: Found) -> list[Section]:
    """Tell of a run that a monitor wrote."""
    path = found.path.parent if found.path.name == "run.json" else found.path
    run = read_run(path)
    steps = sum(len(curve[0]) for curves in run.curves.values() for curve in curves.values())
    tiles = Tiles(
        [
            Tile("State", run.state, run.error or ""),
            Tile("Time", f"{run.seconds:.0f} s"),
            Tile("Numbers", steps),
            Tile("Alarms", len(run.alarms)),
        ]
    )
    blocks: list[Block] = [tiles, *[Paragraph(f"Alarm: {one}.") for one in run.alarms]]
    metrics: dict[str, dict[str, Curve]] = {}
    for job, curves in run.curves.items():
        for name, curve in curves.items():
            if name not in _NO_CURVE and len(curve[0]) > 1:
                metrics.setdefault(name, {})[job] = curve
    pictures = [
        _drawn(f"{name}" if not part else f"{name}, {part + 1}", chosen, found.name)
        for name, curves in metrics.items()
        for part, chosen in enumerate(_parts(curves))
    ]
    if pictures:
        blocks.append(Gallery(pictures))
    rows: list[list[Cell]] = [
        [f"{job}: {name}", steps[-1], _brief(values[-1]), _brief(_least(values)), _brief(_most(values))]
        for job, curves in run.curves.items()
        for name, (steps, values) in curves.items()
    ]
    if rows:
        blocks.append(Table("Where each number ended", ["number", "step", "last", "least", "most"], rows))
    lead = f"{run.name}, from {run.started or 'a time nobody noted'}."
    return [
        Section("The job", blocks, lead=lead),
        Section("How to look at it again", [Command(f"umaf monitor {found.name}")]),
    ]


def expert(found: Found) -> list[Section]:
    """Tell of an expert's card: what it was trained on, how well it does, and its curves."""
    card = found.data
    tiles = [Tile(name.replace("_", " "), float(value)) for name, value in list(card["scores"].items())[:4]]
    facts = words_of(card, ("description", "base", "architecture", "objective", "reward"))
    facts += words_of(card.get("data") or {}, list(card.get("data") or {}))
    blocks: list[Block] = [Tiles(tiles)] if tiles else []
    blocks.append(Table("What it is", ["", "value"], [*facts, ["weights it scales", len(card["modules"])]]))
    if len(card["scores"]) > len(tiles):
        rows: list[list[Cell]] = [[name, float(value)] for name, value in card["scores"].items()]
        blocks.append(Table("Scores", ["score", "value"], rows))
    pictures = [_drawn(name, {name: curve}, found.name) for name, curve in _curves(card["curves"]).items()]
    parts = [Section(f"The expert {card['name']}", blocks)]
    if pictures:
        parts.append(Section("How it learned", [Gallery(pictures)]))
    settings = words_of(card.get("settings") or {}, list(card.get("settings") or {}))
    ending: list[Block] = (
        [Table("Settings of the training", ["setting", "value"], settings)] if settings else []
    )
    ending.append(Command(f"umaf expert show {found.name}"))
    return [*parts, Section("Settings", ending)]


def _curves(curves: Mapping[str, Sequence[float | None]]) -> dict[str, Curve]:
    """Pair an expert's curves with their steps: looks at a split have a list of steps beside them."""
    found: dict[str, Curve] = {}
    for name, values in curves.items():
        if name.endswith("_step") or len(values) < 2:
            continue
        steps = curves.get(f"{name}_step") or list(range(1, len(values) + 1))
        numbers = [math.nan if value is None else float(value) for value in values]
        if len(steps) == len(numbers) and any(map(math.isfinite, numbers)):
            found[name] = ([float(step or 0) for step in steps], numbers)
    return found


def _parts(curves: Mapping[str, Curve]) -> list[dict[str, Curve]]:
    """So many series to a drawing as there are colours."""
    names = list(curves)
    size = len(PALETTE)
    return [
        {name: curves[name] for name in names[start : start + size]} for start in range(0, len(names), size)
    ]


def _drawn(name: str, curves: Mapping[str, Curve], where: str) -> Picture:
    points = sum(len(curve[0]) for curve in curves.values())
    return Picture(
        training_curves(curves, title=name.replace("_", " ")),
        caption=f"{points} numbers" + (f" of {len(curves)} jobs." if len(curves) > 1 else "."),
        alt=f"Curve of {name} over the steps of {where}.",
        name=f"curve-{name}",
    )


def _least(values: Sequence[float]) -> float:
    return min((value for value in values if math.isfinite(value)), default=math.nan)


def _most(values: Sequence[float]) -> float:
    return max((value for value in values if math.isfinite(value)), default=math.nan)


def _brief(value: Any) -> str | None:
    return f"{value:.4g}" if isinstance(value, int | float) and math.isfinite(value) else None
