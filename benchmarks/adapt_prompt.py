"""Dispatch by prompt on the unseen tasks: what it gains over the base, and its first pass as a share of the second.

    python -m benchmarks.adapt_prompt

The other ways of `benchmarks.adapt_unseen` stay as they were measured; this part stands for dispatch by prompt now that
the names of the experts come before the request and are read once. Tasks, seeds, texts and batches are the same. Beside
the unseen tasks, validation texts of the train tasks are sorted, where the right name is known, by prompt and by probe.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.adapt import task_of
from benchmarks.adapt_parts import keep_part
from benchmarks.adapt_plan import SEEDS, TASKS, UNSEEN
from benchmarks.adapt_unseen import BATCH, Cell, difference, dispatcher_of
from umaf.dispatch.decision import Decision, Dispatcher
from umaf.dispatch.shelf import by_name
from umaf.evaluation.summary import Figure

SORTED = 40
"""Validation texts per train task and seed that are sorted by name."""


def decided(decide: Dispatcher, texts: Sequence[str]) -> tuple[Decision, float]:
    """Decide texts in batches; gives the seconds it took."""
    begun = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        parts = [decide(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
    seconds = time.perf_counter() - begun
    return Decision(
        parts[0].names, torch.cat([one.weights for one in parts]), sum((one.reasons for one in parts), ())
    ), seconds


def measure(task: str, seed: int) -> dict[str, Any]:
    """Answer one unseen task by the base and by what the prompt chooses."""
    cell, found = Cell(task, seed), {}
    base = by_name(cell.shelf, {}, rows=len(cell.test))
    decision, first = decided(dispatcher_of("prompt", seed), [one.text for one in cell.test])
    found["correct"], found["seconds"] = {}, {"prompt.first": first}
    for name, one in (("base", base), ("prompt", decision)):
        found["correct"][name], found["seconds"][name] = cell.correct(one)
    return {**found, "chosen": {}, "weights": decision.weights.mean(0).tolist()}


def named_rightly(by: str, seed: int) -> np.ndarray:
    """Say which validation texts of the train tasks get the expert of their own task."""
    right = []
    for task in TASKS:
        texts = [one.text for one in task_of(task, seed).validation[:SORTED]]
        decision, _ = decided(dispatcher_of(by, seed), texts)
        own = decision.names.index(task.partition("/")[2])
        right += (decision.weights[:, own] == 1).tolist()
    return np.array(right, dtype=float)


def interval(parts: Sequence[np.ndarray], centre: str = "mean") -> Figure:
    """Give a mean or a median over everything, with an interval that draws parts, then what is in them."""
    random, of = np.random.default_rng(0), {"mean": np.mean, "median": np.median}[centre]
    draws = [
        of(
            np.concatenate(
                [random.choice(parts[i], len(parts[i])) for i in random.integers(0, len(parts), len(parts))]
            )
        )
        for _ in range(2000)
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    whole = np.concatenate(parts)
    return Figure(round(float(of(whole)), 4), round(float(low), 4), round(float(high), 4), n=len(whole))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every cell, print and keep."""
    argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0]).parse_args(arguments)
    torch.set_num_threads(1)
    for seed in SEEDS:
        measure(UNSEEN[0], seed)  # what is read and found once per seed is no part of what is timed
    cells = {(task, seed): measure(task, seed) for seed, task in itertools.product(SEEDS, UNSEEN)}
    shares = [
        np.array(
            [
                cells[task, seed]["seconds"]["prompt.first"] / cells[task, seed]["seconds"]["prompt"]
                for task in UNSEEN
            ]
        )
        for seed in SEEDS
    ]
    gain = difference(cells, "prompt", "base")
    figures = {"first_pass.share": interval(shares, "median")}
    figures |= {} if gain is None else {"gain.prompt_over_base.unseen": gain}
    for by in ("prompt", "probe"):
        figures[f"first_pass.named_rightly.{by}"] = interval([named_rightly(by, seed) for seed in SEEDS])
    for name, figure in figures.items():
        print(f"{name}: {figure.value} ({figure.low} to {figure.high}), n {figure.n}")
    seconds = [cell["seconds"]["prompt.first"] for cell in cells.values()]
    print(f"first pass of a cell: {statistics.median(seconds):.2f} s")
    results = {f"{task}--{seed}": cell for (task, seed), cell in cells.items()}
    keep_part("unseen_prompt", figures=figures, numbers={"cells": results})


if __name__ == "__main__":
    main()
