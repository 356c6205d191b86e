"""Cells of the adaptation benchmark -> a dated record, comparison/adapt/summary.json, and the table of methods."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.adapt_parts import kept_parts
from benchmarks.adapt_plan import METHODS, SEEDS, STEPS, TASKS, TEST
from umaf.evaluation.record import new_record, write_record
from umaf.evaluation.statistics import Bootstrap, mean_interval
from umaf.evaluation.summary import Figure, write_summary

HOME = Path(__file__).resolve().parents[1] / "comparison" / "adapt"
Cells = dict[tuple[str, str, int], dict[str, Any]]


def read(home: Path) -> Cells:
    """Read every cell measured so far, by method, task and seed."""
    found = {}
    for path in sorted((home / "cells").glob("*.json")):
        cell = json.loads(path.read_text(encoding="utf-8"))
        key = cell["cell"]
        found[key["method"], key["task"], int(key["seed"])] = cell
    return found


def gain(cells: Cells, method: str, task: str, over: str = "base") -> Figure | None:
    """Give what a method gains on a task: the mean difference per text, paired, over all seeds measured.

    Args:
        cells: what `read` gave.
        method: whose answers.
        task: of which task.
        over: "base", or another method.

    Returns:
        Share of right answers more than `over`, with an interval that draws seeds and texts within them; None where
        nothing is measured.
    """
    by_seed = []
    for seed in SEEDS:
        mine, other = cells.get((method, task, seed)), cells.get((over, task, seed))
        if mine is None or (over != "base" and other is None):
            continue
        than = mine["base"] if over == "base" else other["correct"] if other else []
        by_seed.append(np.subtract(mine["correct"], than, dtype=float))
    return _over_seeds(by_seed) if by_seed else None


def _over_seeds(by_seed: Sequence[np.ndarray], draws: int = 2000) -> Figure:
    """Mean with an interval in two stages: seeds are drawn, then texts within each."""
    random = np.random.default_rng(0)
    means = []
    for _ in range(draws):
        chosen = random.integers(0, len(by_seed), len(by_seed))
        means.append(np.mean([random.choice(by_seed[i], len(by_seed[i])).mean() for i in chosen]))
    low, high = np.quantile(means, [0.025, 0.975])
    value = float(np.mean([part.mean() for part in by_seed]))
    return Figure(round(value, 4), round(float(low), 4), round(float(high), 4), n=sum(map(len, by_seed)))


def figures_of(cells: Cells) -> dict[str, Figure]:
    """Give the headline figures of the trained tasks."""
    figures: dict[str, Figure] = {}
    over_base = {task: gain(cells, "svf_rl", task) for task in TASKS}
    known = {
        task: figure for task, figure in over_base.items() if figure is not None and figure.value is not None
    }
    if len(known) == len(TASKS):
        worst = min(known.values(), key=lambda figure: figure.value or 0)
        figures["gain.svf_rl_over_base.worst_task"] = _aimed(worst, "> 0, interval above 0")
    pairs = [gain(cells, "svf_rl", task, "lora_rl") for task in TASKS]
    if all(pair is not None for pair in pairs):
        figures["gain.svf_rl_over_lora_rl"] = _aimed(_all_tasks(cells, "svf_rl", "lora_rl"), "> 0")
    for task, figure in known.items():
        figures[f"gain.svf_rl_over_base.{task.partition('/')[2]}"] = _aimed(figure, "> 0, interval above 0")
    for method in METHODS:
        if all((method.name, task, SEEDS[0]) in cells for task in TASKS):
            figures[f"gain.{method.name}_over_base"] = _all_tasks(cells, method.name, "base")
    counts = {name: cell["parameters"] for (name, _, _), cell in cells.items()}
    if {"svf_rl", "lora_rl"} <= set(counts):
        share = counts["svf_rl"] / counts["lora_rl"]
        figures["params.svf_over_lora16"] = Figure(round(share, 5), n=1, aim="<= 0.10")
    return figures


def _all_tasks(cells: Cells, method: str, over: str) -> Figure:
    """Mean gain over tasks; the interval draws seeds whole, and texts within each task."""
    by_seed = []
    for seed in SEEDS:
        parts = []
        for task in TASKS:
            mine, other = cells.get((method, task, seed)), cells.get((over, task, seed))
            if mine is None or (over != "base" and other is None):
                break
            than = mine["base"] if over == "base" else other["correct"] if other else []
            parts.append(np.subtract(mine["correct"], than, dtype=float))
        else:
            # Every task weighs the same, however many texts it has.
            weight = [part * (sum(map(len, parts)) / len(parts) / len(part)) for part in parts]
            by_seed.append(np.concatenate(weight))
    return _over_seeds(by_seed)


def _aimed(figure: Figure, aim: str) -> Figure:
    return Figure(figure.value, figure.low, figure.high, n=figure.n, aim=aim)


def scores(cells: Cells, method: str, task: str) -> list[float]:
    """Give a method's share of right answers on a task, one per seed; "base" for the bare base."""
    key, source = ("base", "svf_rl") if method == "base" else ("correct", method)
    return [
        statistics.fmean(cells[source, task, seed][key]) for seed in SEEDS if (source, task, seed) in cells
    ]


def show(cells: Cells, console: Console) -> None:
    """Print the table: method by task, parameters and time."""
    names = [task.partition("/")[2] for task in TASKS]
    table = Table(
        "method", *names, "parameters", "CPU s", title=f"share of right answers, {TEST} test texts a seed"
    )
    for method in ("base", *(one.name for one in METHODS)):
        mine = [cell for (name, _, _), cell in cells.items() if name == method]
        shares = [scores(cells, method, task) for task in TASKS]
        cost = [cell["cpu"] for cell in mine if cell["cpu"]]
        table.add_row(
            method,
            *(f"{100 * statistics.fmean(found):.1f}" if found else "" for found in shares),
            f"{mine[0]['parameters']:,}" if mine else "",
            f"{statistics.median(cost):.0f}" if cost else "",
        )
    console.print(table)


def _short(cell: dict[str, Any]) -> dict[str, Any]:
    """Leave of a cell what a record needs: answers as a string of 0 and 1, and of the curve the validation looks."""
    signs = {key: "".join("01"[right] for right in cell[key]) for key in ("correct", "base")}
    curves = cell["curve"]
    looks = (
        curves[0]["validation"]
        if "validation_step" in curves[0]
        else [entry["validation"] for entry in curves if "validation" in entry]
    )
    return {**cell, **signs, "curve": looks}


def summarise(home: Path) -> None:
    """Write record and summary of everything measured so far, the other parts too, and print the table."""
    cells = read(home)
    figures, parts = kept_parts()
    figures = {**figures_of(cells), **figures}
    if not figures:
        raise SystemExit("adapt: nothing has been measured yet.")
    show(cells, Console(width=120))
    results = {"--".join(map(str, key)): _short(cell) for key, cell in cells.items()}
    intervals = {
        f"{method}.{task.partition('/')[2]}": vars(mean_interval(found, bootstrap=Bootstrap(resamples=500)))
        for method in ("base", *(one.name for one in METHODS))
        for task in TASKS
        if len(found := scores(cells, method, task)) > 1
    }
    config = {
        "tasks": TASKS,
        "seeds": SEEDS,
        "test_texts": TEST,
        "steps": STEPS,
        "methods": [vars(one) for one in METHODS],
    }
    numbers = {
        "figures": {name: vars(figure) for name, figure in figures.items()},
        "scores": intervals,
        "cells": results,
        "parts": parts,
    }
    HOME.mkdir(parents=True, exist_ok=True)
    record = new_record("adapt", config=config, numbers=numbers)
    write_record(HOME / f"{datetime.now(timezone.utc):%Y-%m-%d-%H%M}.json", record)
    write_summary(HOME / "summary.json", figures)


if __name__ == "__main__":
    from benchmarks.adapt import home as home_of_cells

    summarise(home_of_cells())
