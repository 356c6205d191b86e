"""Results of the merge benchmark -> a dated record, comparison/merge/summary.json, and the table that papers print."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from datetime import datetime, timezone
from pathlib import Path

from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau

from benchmarks.merge_plan import BASES, SCALED, TASKS, TEST
from benchmarks.speed_run import ROOT
from umaf.evaluation.record import new_record, read_record, write_record
from umaf.evaluation.summary import Figure, write_summary

HOME = ROOT / "comparison" / "merge"
STUDENT_T = {1: float("nan"), 2: 12.71, 3: 4.303}
PUBLISHED = {
    "linear": 66.5,
    "task_arithmetic_swept": 68.0,
    "ties": 72.2,
    "consensus_ta": 75.0,
    "pcb": 76.3,
    "iso_c": 82.8,
    "wudi": 84.5,
    "tsv_m": 85.9,
}
"""Average accuracy over eight vision tasks with CLIP ViT-B/32: average, task arithmetic, TIES, Iso-C and WUDI from
FusionBench's table (docs/modelpool/clip_vit.md), Consensus and TSV-M from the data of TSV's repository, PCB from
WUDI's README. Only their order is compared."""

CHANGED = ("opcm", "emr_unified", "knots", "store.emr", "store.twin")
"""What had other defaults, or another rule, in records before this one; their cells are not taken from there."""


def summarise(home: Path, earlier: Path | None = None) -> None:
    """Write record and summary of everything measured so far, and print a table per base.

    Args:
        home: of the results.
        earlier: a record whose cells stand in for those that `home` lacks, but for `CHANGED`; they are listed.
    """
    results = {
        folder.name: {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
        for folder in sorted(home.glob("*--*"))
    }
    taken: dict[str, list[str]] = {}
    for name, cells in (read_record(earlier).numbers["results"] if earlier else {}).items():
        more = {cell: found for cell, found in cells.items() if cell not in CHANGED}
        taken[name] = sorted(set(more) - set(results.get(name, {})))
        results[name] = {**more, **results.get(name, {})}
    if not results:
        raise SystemExit("merge: nothing has been measured yet.")
    figures: dict[str, Figure] = {}
    for base in BASES:
        seeds = [found for name, found in results.items() if name.startswith(f"{base.name}--")]
        if seeds:
            figures |= _figures(base.name, seeds)
            _show(base.name, seeds)
    config = {
        "bases": [vars(base) for base in BASES],
        "tasks": TASKS,
        "test_texts": TEST,
        "published": PUBLISHED,
        "taken": {earlier.name: taken} if earlier else {},
    }
    shown = {name: vars(figure) for name, figure in figures.items()}
    record = new_record("merge", config=config, numbers={"figures": shown, "results": results})
    HOME.mkdir(parents=True, exist_ok=True)
    write_record(HOME / f"{datetime.now(timezone.utc):%Y-%m-%d-%H%M}.json", record)
    write_summary(HOME / "summary.json", figures)


def averages(seeds: list[dict]) -> dict[str, list[float]]:
    """Average accuracy over tasks of every method, seed by seed."""
    found = defaultdict(list)
    for results in seeds:
        for name, result in results.items():
            found[name].append(statistics.fmean(result["scores"].values()))
    return found


def shares(seeds: list[dict]) -> dict[str, list[float]]:
    """Accuracy as a share of the expert's own on each task, averaged over tasks, seed by seed."""
    found = defaultdict(list)
    for results in seeds:
        own = results["experts"]["scores"]
        for name, result in results.items():
            found[name].append(statistics.fmean(result["scores"][task] / own[task] for task in TASKS))
    return found


def _figures(base: str, seeds: list[dict]) -> dict[str, Figure]:
    figures = {}
    for kind, found in (("average", averages(seeds)), ("share", shares(seeds))):
        for name, values in sorted(found.items(), key=lambda item: -statistics.fmean(item[1])):
            figures[f"{kind}.{name}.{base}"] = _over_seeds(values)
    figures |= _order("order.kendall", base, averages(seeds), "")
    chosen = [
        found for found in seeds if all(f"scaled.{name}" in found for name in PUBLISHED if name in SCALED)
    ]
    figures |= _order("order.kendall.scaled", base, averages(chosen), "scaled.")
    for name in ("length", "cosine", "rank"):
        values = [results["experts"]["apart"][name] for results in seeds if "apart" in results["experts"]]
        if values:
            figures[f"experts.{name}.{base}"] = _over_seeds(values)
    return figures


def _order(figure: str, base: str, found: dict[str, list[float]], prefix: str) -> dict[str, Figure]:
    """Kendall's tau with the published order, of what has been measured; methods with the prefix in their place."""
    ours = {name: found.get(f"{prefix}{name}", found.get(name)) for name in PUBLISHED}
    means = {name: statistics.fmean(values) for name, values in ours.items() if values}
    if len(means) < 3:
        return {}
    agreement = kendalltau([PUBLISHED[name] for name in means], list(means.values()))
    return {f"{figure}.{base}": Figure(round(float(agreement[0]), 3), n=len(means))}


def _over_seeds(values: list[float]) -> Figure:
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Figure(round(mean, 4), n=len(values))
    half = STUDENT_T[min(len(values), 3)] * statistics.stdev(values) / len(values) ** 0.5
    return Figure(round(mean, 4), round(mean - half, 4), round(mean + half, 4), n=len(values))


def _show(base: str, seeds: list[dict]) -> None:
    columns = ["method", *TASKS, "average", "share", "wall s", "MB"]
    table = Table(*columns, title=f"eight experts of {base}, {len(seeds)} seeds")
    average, share = averages(seeds), shares(seeds)
    for name in sorted(average, key=lambda name: -statistics.fmean(average[name])):
        rows = [results[name] for results in seeds if name in results]
        per_task = [f"{100 * statistics.fmean(row['scores'][task] for row in rows):.1f}" for task in TASKS]
        cost = [
            f"{statistics.median(row[key] for row in rows):.1f}" if key in rows[0] else ""
            for key in ("wall", "memory")
        ]
        means = [f"{100 * statistics.fmean(of[name]):.1f}" for of in (average, share)]
        table.add_row(name, *per_task, *means, *cost)
    Console(width=200).print(table)


if __name__ == "__main__":
    from benchmarks.merge import results as home_of_results

    summarise(home_of_results())
