"""Cells of first light -> a dated record, comparison/first-light/summary.json, and a table."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.cells import SIZES
from benchmarks.plan import FUNCTION_PAIRS, FUSED, PAIRS, SEEDS, groups
from umaf.evaluation.record import new_record, write_record
from umaf.evaluation.statistics import Interval, mean_interval, ratio_interval, recovery
from umaf.evaluation.summary import Figure, write_summary

HOME = Path(__file__).resolve().parents[1] / "comparison" / "first-light"
ROUTES = ("solve", "distill", "distill_long", "proxy", "mean_adapter")
CONTROLS = ("control_wrong_source", "control_shuffled", "control_index_svd")


def summarise(folder: Path) -> None:
    """Write record and summary of every cell measured so far, and print the figures."""
    cells = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    if not cells:
        raise SystemExit("first light: nothing has been measured yet.")
    figures = headline(cells)
    planned = sum(map(len, groups()))
    config = {
        "pairs": PAIRS, "function_pairs": FUNCTION_PAIRS, "fused": FUSED, "seeds": SEEDS,
        "cells_planned": planned, "cells_measured": len(cells),
        "cells_without_commit": sum("commit" not in one for one in cells), **SIZES,
    }  # fmt: skip
    record = new_record(
        "first-light", config=config, numbers={"figures": as_numbers(figures), "cells": cells}
    )
    write_record(HOME / f"{datetime.now(timezone.utc):%Y-%m-%d-%H%M}.json", record)
    write_summary(HOME / "summary.json", figures)
    table = Table("figure", "value", "95 % interval", "n", "aim", title="first light")
    for name, figure in figures.items():
        span = "" if figure.low is None else f"{figure.low:.2f} to {figure.high:.2f}"
        value = "" if figure.value is None else f"{figure.value:.2f}"
        table.add_row(name, value, span, str(figure.n), str(figure.aim or ""))
    Console().print(table)


def headline(cells: Sequence[dict]) -> dict[str, Figure]:
    """Compute every figure: recoveries are means over cells, intervals draw whole capabilities."""
    labels = [one for one in cells if one["cell"]["kind"] == "classification"]
    written = [one for one in cells if one["cell"]["kind"] == "function"]
    fused = [one for one in cells if one["cell"]["kind"] == "fused"]
    measurable = [one for one in (*labels, *written) if recovered(one, "oracle") is not None]
    controls = {name: mean_recovery([*labels, *written], name) for name in CONTROLS}
    worst = max(controls.values(), key=lambda one: one.value if one else -1.0)
    figures = {
        "recovery.solve.classification": as_figure(mean_recovery(labels, "solve"), ">= 0.70"),
        "recovery.solve.functions": as_figure(mean_recovery(written, "solve"), ">= 0.40"),
        "recovery.distill": as_figure(mean_recovery([*labels, *written], "distill"), ">= 0.90"),
        "time.distill_over_lora": as_figure(_time([*labels, *written]), "<= 0.50"),
        "fused2.kept": as_figure(_kept(fused, "distill"), ">= 0.90"),
        "control.worst": as_figure(worst, "<= 0.10"),
        "cells": Figure(len(measurable), n=len(labels) + len(written), aim=">= 144"),
        "fused2.kept.solve": as_figure(_kept(fused, "solve"), None),
    }
    for kind, some in (("classification", labels), ("functions", written)):
        for who in (*ROUTES, *CONTROLS):
            figures.setdefault(f"recovery.{who}.{kind}", as_figure(mean_recovery(some, who), None))
        figures[f"time.distill_over_lora.{kind}"] = as_figure(_time(some), None)
        figures[f"time.distill_with_answers_over_lora.{kind}"] = as_figure(
            _time(some, ("distill", "answers")), None
        )
        figures[f"time.solve_over_lora.{kind}"] = as_figure(_time(some, ("solve",)), None)
        figures[f"forgetting.distill.{kind}"] = as_figure(_forgotten(some, "distill"), None)
        figures[f"forgetting.oracle.{kind}"] = as_figure(_forgotten(some, "oracle"), None)
    return figures


def recovered(one: dict, who: str) -> float | None:
    """Recovery of a cell; None where it was not measured, or the oracle gains too little to divide by."""
    scores = one["scores"]
    return None if scores.get(who) is None else recovery(scores[who], scores["bare"], scores["oracle"])


def mean_recovery(cells: Sequence[dict], who: str) -> Interval | None:
    """Mean recovery over cells; the interval draws whole capabilities."""
    found = [(one["cell"]["capability"], recovered(one, who)) for one in cells]
    kept = [(name, value) for name, value in found if value is not None]
    return over_capabilities(kept)


def over_capabilities(kept: Sequence[tuple[str, float]]) -> Interval | None:
    """Mean of (capability, value) pairs; the interval draws whole capabilities, and n counts the pairs."""
    if not kept:
        return None
    names, values = zip(*kept, strict=True)
    drawn = mean_interval(values, groups=list(names))
    return Interval(drawn.value, drawn.low, drawn.high, len(values))


def _time(cells: Sequence[dict], who: Sequence[str] = ("distill",)) -> Interval | None:
    """CPU seconds of a route over those of LoRA fine-tuning on labels, of cells that took both in one run."""
    cells = [one for one in cells if one.get("one_run")]
    if not cells:
        return None
    over = [sum(one["cpu"][part] for part in who) for one in cells]
    return ratio_interval(
        over, [one["cpu"]["oracle"] for one in cells], groups=[one["cell"]["capability"] for one in cells]
    )


def _kept(cells: Sequence[dict], route: str) -> Interval | None:
    """Gain of a fused adapter on each of its capabilities over the gain of that capability's own adapter."""
    kept = []
    for one in cells:
        for name, scores in one["scores"].items():
            alone = scores[f"{route}_alone"] - scores["bare"]
            if alone >= 0.03:
                kept.append((name, (scores[f"{route}_fused"] - scores["bare"]) / alone))
    return over_capabilities(kept)


def _forgotten(cells: Sequence[dict], who: str) -> Interval | None:
    return over_capabilities(
        [
            (one["cell"]["capability"], one["forgetting"][who]["mean_drop"])
            for one in cells
            if one["forgetting"]
        ]
    )


def as_figure(interval: Interval | None, aim: str | None) -> Figure:
    """Turn an interval into a figure of a summary."""
    if interval is None:
        return Figure(None, aim=aim)
    low, high = (None if np.isnan(bound) else bound for bound in (interval.low, interval.high))
    return Figure(interval.value, low, high, n=interval.n, aim=aim)


def as_numbers(figures: dict[str, Figure]) -> dict[str, dict]:
    """Figures as plain mappings, for the record."""
    rows: dict[str, dict] = defaultdict(dict)
    for name, figure in figures.items():
        rows[name] = vars(figure)
    return dict(rows)


if __name__ == "__main__":
    summarise(Path(__file__).resolve().parents[1] / "out" / "first-light" / "cells")
