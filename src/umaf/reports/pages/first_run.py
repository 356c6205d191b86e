"""A quickstart, told from its record alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from umaf.evaluation.statistics import Interval
from umaf.reports.blocks import Block, Cell, Gallery, Picture, Section, Table, Tile, Tiles
from umaf.reports.figures import recovery_bars
from umaf.reports.known import Found
from umaf.reports.pages.parts import again, command_line, measured, record_of
from umaf.reports.pages.prints import Models, drawings
from umaf.reports.pareto import Offer, pareto_front

_ROUTES = ("solve", "distill", "generate")
_FORMS = ("bare", *_ROUTES, "oracle", "source")


def quickstart(found: Found) -> list[Section]:
    """Tell of a record of `umaf quickstart`."""
    record = record_of(found)
    numbers = record.numbers
    scores: Mapping[str, Mapping[str, Any]] = numbers["scores"]
    pictures, rows = [], []
    for level, cells in scores.items():
        bars = {
            name: {form: row for form in _FORMS if (row := measured(cell.get(form))) is not None}
            for name, cell in cells.items()
        }
        pictures.append(
            Picture(
                recovery_bars(bars, title=level.capitalize()),
                caption=f"Share answered rightly, {level}.",
                alt=f"Bars of accuracy on {level}, by capability and form of the target.",
                name=f"recovery-{level}",
            )
        )
        for name, cell in cells.items():
            gains: list[Cell] = [measured((cell.get(route) or {}).get("recovery")) for route in _ROUTES]
            rows.append([f"{name}, {level}", *gains])
    seconds = numbers.get("seconds", {}).get("wall")
    kept = str(numbers.get("kept", "–"))
    tiles = [Tile("Adapter kept", kept), *([Tile("Time", f"{seconds:.0f} s")] if seconds else [])]
    note = "0 is the bare target, 1 an oracle, the same target with a LoRA trained on labels."
    blocks: list[Block] = [
        Tiles(tiles),
        Gallery(pictures),
        Table("Recovery, with 95 % intervals over texts", ["capability", *_ROUTES], rows, note=note),
        *_costs(numbers),
    ]
    parts = [Section("How much arrived", blocks), *_alike(numbers)]
    return [*parts, again(found, command_line("quickstart", {"seed": record.seed}))]


def _costs(numbers: Mapping[str, Any]) -> list[Block]:
    """What plain writing lost, and score against seconds."""
    bits: list[list[Cell]] = [
        [name, f"{value:.3f}"] for name, value in numbers.get("bits_per_byte", {}).items()
    ]
    blocks: list[Block] = []
    if bits:
        blocks.append(
            Table("Bits per byte of plain sentences; lower is better", ["target", "bits per byte"], bits)
        )
    offers = {}
    first = next(iter(numbers["scores"].values()))
    for route, about in (numbers.get("routes") or {}).items():
        values = [row for cell in first.values() if (row := measured(cell.get(route))) is not None]
        if values and isinstance(about.get("seconds"), int | float):
            offers[route] = Offer(float(about["seconds"]), values[0] if len(values) == 1 else _mean(values))
    if len(offers) > 1:
        figure = pareto_front(offers, title="What seconds buy", cost="seconds to make", score="share right")
        blocks.append(
            Picture(
                figure,
                caption="Mean over the capabilities, on new sentences. Nothing faster beats what is on the line.",
                alt=f"Accuracy against seconds of {', '.join(offers)}.",
                name="routes",
            )
        )
    return blocks


def _mean(values: list) -> Any:
    value = float(np.mean([one.value for one in values]))
    return Interval(value, float("nan"), float("nan"), len(values))


def _alike(numbers: Mapping[str, Any]) -> list[Section]:
    """The map and the similarities, from the cosines that the record keeps."""
    found = numbers.get("similarity")
    if not found:
        return []
    names = [str(name) for name in found["models"]]
    # A name is "architecture · what it can do".
    split = [name.partition(" · ") for name in names]
    capabilities = [str(part[2] or part[0]).partition(",")[0] for part in split]
    table = np.asarray(found["cosine"], dtype=np.float64)
    models = Models(names, capabilities, [part[0] for part in split], (table + table.T) / 2)
    lead = "A fingerprint is the change that learning made, told by a fixed set of anchor texts."
    return [Section("What fingerprints say", drawings(models), lead=lead)]
