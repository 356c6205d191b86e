"""Published weights as source and as target: a LLaMA of 260 thousand parameters that somebody taught to write stories.

    python -m benchmarks.published [--minutes 60] [--only-summary]

Cells as those of first light, without its baselines, controls and times: the same held-out capabilities, probes, test
texts and oracles. Kept under out/published and gone on with; what is measured becomes a dated record and
comparison/published/summary.json.
"""

from __future__ import annotations

import argparse
import json
from datetime import datetime, timezone
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import cells as first_light
from benchmarks.first_light_summary import as_figure, as_numbers, mean_recovery, recovered
from benchmarks.plan import Cell
from benchmarks.workers import share
from umaf.evaluation.record import new_record, write_record
from umaf.evaluation.summary import Figure, write_summary

ROOT = Path(__file__).resolve().parents[1]
HOME, CACHE = ROOT / "comparison" / "published", ROOT / "out" / "published"
PAIRS = (("bert-1m", "stories260K"), ("stories260K", "bert-1m"))
CAPABILITIES, SEEDS = ("snips7", "mr_polarity", "clinc150/domains"), (0, 1, 2)


def main() -> None:
    """Measure what is missing, then write record and summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no new cell after this long")
    parser.add_argument("--only-summary", action="store_true")
    asked = parser.parse_args()
    if not asked.only_summary:
        run = datetime.now(timezone.utc).isoformat()
        share(CACHE, run, 1, asked.minutes, ("benchmarks.published", "benchmarks.published"))
    summarise()


def groups() -> list[list[Cell]]:
    """List the cells, a seed and a pair at a time."""
    return [
        [Cell("classification", *pair, name, seed) for name in CAPABILITIES]
        for seed in SEEDS
        for pair in PAIRS
    ]


def measure(cell: Cell, cache: Path, run: str) -> dict:
    """Measure a cell; what it costs is not asked here."""
    found = first_light.measure(cell, cache, run)
    return {"scores": found["scores"], "probes": found["probes"]}


def summarise() -> None:
    """Write record and summary of every cell measured so far, and print the figures."""
    found = [json.loads(path.read_text()) for path in sorted((CACHE / "cells").glob("*.json"))]
    if not found:
        raise SystemExit("published weights: nothing has been measured yet.")
    planned = sum(map(len, groups()))
    measurable = [one for one in found if recovered(one, "oracle") is not None]
    figures = {"cells": Figure(len(measurable), n=len(found), aim=str(planned))}
    for source, target in PAIRS:
        some = [one for one in found if (one["cell"]["source"], one["cell"]["target"]) == (source, target)]
        for route in ("solve", "distill"):
            figures[f"recovery.{route}.{source}.{target}"] = as_figure(mean_recovery(some, route), None)
    config = {"pairs": PAIRS, "capabilities": CAPABILITIES, "seeds": SEEDS, "cells_planned": planned}
    config |= {"cells_measured": len(found), **first_light.SIZES}
    record = new_record("published", config=config, numbers={"figures": as_numbers(figures), "cells": found})
    write_record(HOME / f"{datetime.now(timezone.utc):%Y-%m-%d-%H%M}.json", record)
    write_summary(HOME / "summary.json", figures)
    table = Table("figure", "value", "95 % interval", "n", title="published weights")
    for name, figure in figures.items():
        span = "" if figure.low is None else f"{figure.low:.2f} to {figure.high:.2f}"
        table.add_row(name, "" if figure.value is None else f"{figure.value:.2f}", span, str(figure.n))
    Console().print(table)


if __name__ == "__main__":
    main()
