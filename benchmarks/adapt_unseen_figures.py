"""Cells of the unseen tasks -> differences between ways, with intervals, and the table of shares."""

from __future__ import annotations

import statistics

import numpy as np

from benchmarks.adapt_plan import TASKS, UNSEEN
from umaf.evaluation.summary import Figure

SHOTS = (3, 5, 10, 20)
LAYERS_AT = 10
DRAWS = 3
"""Sets of 10 shots."""


def difference(cells: dict, one: str, other: str) -> Figure | None:
    """Mean difference in right answers; the interval draws seeds, tasks within them, and texts within those."""
    table: dict[int, list[np.ndarray]] = {}
    for (_, seed), cell in sorted(cells.items(), key=lambda item: item[0][1]):
        pair = [_by_draw(cell, name) for name in (one, other)]
        shared = set(pair[0]) & set(pair[1])
        # Two ways that shots decide are set side by side on the same shots; others are the same for every draw.
        if all(name.startswith(("fewshot", "shots")) for name in (one, other)):
            pair = [{draw: found[draw] for draw in shared} for found in pair]
        if all(pair):
            first, second = (np.mean(list(found.values()), 0) for found in pair)
            table.setdefault(seed, []).append(first - second)
    if not table:
        return None
    random = np.random.default_rng(0)
    seeds_, draws = list(table), []
    for _ in range(2000):
        means = []
        for seed in random.choice(seeds_, len(seeds_)):
            parts = table[seed]
            means += [
                random.choice(parts[at], len(parts[at])).mean()
                for at in random.integers(0, len(parts), len(parts))
            ]
        draws.append(np.mean(means))
    low, high = np.quantile(draws, [0.025, 0.975])
    value = float(np.mean([part.mean() for parts in table.values() for part in parts]))
    count = sum(len(part) for parts in table.values() for part in parts)
    return Figure(round(value, 4), round(float(low), 4), round(float(high), 4), n=count)


def _by_draw(cell: dict, name: str) -> dict[int, np.ndarray]:
    """Give which texts a way answers rightly, by the draw of shots; what no shots decide has the first alone."""
    found = {}
    for draw in range(DRAWS):
        key = f"{name}@{draw}" if draw else name
        used = cell["chosen"].get(key, key)
        if used in cell["correct"]:
            found[draw] = np.array(cell["correct"][used], dtype=float)
    return found


def _in_hindsight(cell: dict) -> dict:
    """Note which of base and experts was best on the test itself: a bound that no choice of one of them passes."""
    alone = ["base", *(task.partition("/")[2] for task in TASKS)]
    if not all(name in cell["correct"] for name in alone):
        return cell
    best = max(alone, key=lambda name: statistics.fmean(cell["correct"][name]))
    return {**cell, "chosen": {**cell["chosen"], "hindsight": best}}


def figures_of(cells: dict) -> dict[str, Figure]:
    """Give the figures of the unseen tasks, as far as they were measured."""
    pairs = {
        "gain.fewshot10_over_best_expert": ("fewshot10", "shots10"),
        "gain.fewshot10_over_best_expert.by_validation": ("fewshot10", "validation"),
        "gain.best_expert_over_base.unseen": ("shots10", "base"),
        "gain.fewshot10_over_fewshot10_by_reward": ("fewshot10", "fewshot10_reward"),
        "gain.fewshot10_by_reward_over_best_expert": ("fewshot10_reward", "shots10"),
        **{
            f"gain.fewshot{count}_by_reward_over_base.unseen": (f"fewshot{count}_reward", "base")
            for count in SHOTS
        },
        "gain.fewshot10_layers_over_fewshot10": (f"fewshot{LAYERS_AT}_layers", "fewshot10"),
        **{f"gain.fewshot{count}_over_base.unseen": (f"fewshot{count}", "base") for count in SHOTS},
        **{f"gain.{by}_over_base.unseen": (by, "base") for by in ("prompt", "classifier", "probe")},
        "gain.oracle_over_base.unseen": ("oracle", "base"),
        "gain.oracle_over_fewshot10": ("oracle", "fewshot10"),
        "gain.hindsight_over_base.unseen": ("hindsight", "base"),
    }
    cells = {key: _in_hindsight(cell) for key, cell in cells.items()}
    found = {name: difference(cells, one, other) for name, (one, other) in pairs.items()}
    figures = {name: figure for name, figure in found.items() if figure is not None}
    main_one = figures["gain.fewshot10_over_best_expert"]
    figures["gain.fewshot10_over_best_expert"] = Figure(
        main_one.value, main_one.low, main_one.high, main_one.n, "> 0, interval above 0"
    )
    for by in ("prompt", "classifier", "probe"):
        shares = [
            cell["seconds"][f"{by}.first"] / cell["seconds"][by]
            for cell in cells.values()
            if by in cell["seconds"]
        ]
        if shares:
            figures["first_pass.share" if by == "prompt" else f"first_pass.share.{by}"] = _median(shares)
    return figures


def _median(values: list[float]) -> Figure:
    """The median with a bootstrap interval."""
    draws = np.median(np.random.default_rng(0).choice(values, (2000, len(values))), 1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Figure(
        round(statistics.median(values), 4), round(float(low), 4), round(float(high), 4), n=len(values)
    )


def table_of(cells: dict) -> dict[str, dict[str, float]]:
    """Give the share of right answers by task and by way, mean over seeds."""
    names = list(dict.fromkeys(name for cell in cells.values() for name in cell["correct"]))
    found: dict[str, dict[str, float]] = {}
    for task in UNSEEN:
        own = [cell["correct"] for (name, _), cell in cells.items() if name == task]
        if own:
            found[task] = {
                name: round(statistics.fmean(statistics.fmean(one[name]) for one in own if name in one), 4)
                for name in names
                if any(name in one for one in own)
            }
    return found
