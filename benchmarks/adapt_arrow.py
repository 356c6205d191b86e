"""LoRAs chosen per token by Arrow, beside the same LoRAs chosen per request: share of right answers.

    python -m benchmarks.adapt_arrow [--seeds 0 1 2] [--only-summary]

A LoRA of rank 16 is trained on each train task by next tokens (settings of benchmarks/adapt_plan.py). Test texts of the
train tasks, for which one of the LoRAs is the right one, and of the unseen tasks are answered by the base, by all LoRAs
at equal weights, by those that prompt and probe choose for each request, and by Arrow, which chooses for every token
in every module (its defaults: the three best, softmax at temperature 1). Nothing of Arrow was chosen here.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch

from benchmarks.adapt import WORK, home, opened, task_of
from benchmarks.adapt_parts import keep_part
from benchmarks.adapt_plan import LONGEST, SEEDS, TASKS, UNSEEN, Cell, settings_of
from benchmarks.adapt_unseen import BATCH, named_texts
from umaf.adapters import factors_of
from umaf.dispatch.adaptive import AdaptiveModel
from umaf.dispatch.arrow import arrow
from umaf.dispatch.chat import asked
from umaf.dispatch.decision import Decision
from umaf.dispatch.decode import Drawing
from umaf.dispatch.dispatchers import Material, make_dispatcher
from umaf.dispatch.loras import LoraShelf, lora_shelf
from umaf.dispatch.shelf import by_name
from umaf.evaluation.provenance import commit
from umaf.evaluation.summary import Figure
from umaf.experts.policy import lora
from umaf.experts.rewards import RIGHT, judge
from umaf.experts.train import state_folder, take_best, train_policy
from umaf.files import write_json
from umaf.tasks.graded import reward_of

TEST = 60
WAYS = ("base", "mean", "prompt", "probe", "arrow")
PLACE = WORK / "arrow"


def shelf_of(seed: int) -> LoraShelf:
    """Train a LoRA per train task, and put them on a shelf."""
    loras = {}
    for task in TASKS:
        settings = settings_of(Cell("lora_ntp", task, seed))
        policy = lora(opened(), rank=settings.rank, seed=seed)
        folder = PLACE / "work" / f"{task.partition('/')[2]}--{seed}"
        take_best(policy, train_policy(policy, task_of(task, seed), settings=settings, folder=folder))
        for path in state_folder(folder).glob("*"):
            path.unlink()
        loras[task.partition("/")[2]] = {
            name: (a.detach().clone(), b.detach().clone())
            for name, (a, b) in factors_of(policy.model).items()
        }
    return lora_shelf(opened(), loras)


def correct(
    shelf: LoraShelf, name: str, seed: int, decision: Decision, *, tokens: bool = False
) -> list[bool]:
    """Say which test texts of a task are answered rightly; by Arrow where tokens choose."""
    task, reward = task_of(name, seed), reward_of(name) or "exact"
    adaptive, examples = AdaptiveModel(shelf), task.test[:TEST]
    requests = [asked(shelf.model, one.text, task.cue) for one in examples]
    texts: list[str] = []
    with arrow(shelf) if tokens else nullcontext(), torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(requests), BATCH):
            rows = range(start, min(start + BATCH, len(requests)))
            replies = adaptive.generate(
                [requests[row] for row in rows], drawing=Drawing(LONGEST[reward]), experts=decision.take(rows)
            )
            texts += [reply.text for reply in replies]
    with judge(reward, run_code=reward == "code") as judged:
        return [value >= RIGHT for value in judged(texts, examples)]


def measure(seed: int) -> dict:
    """Measure all tasks by one seed's LoRAs."""
    began, shelf = time.process_time(), shelf_of(seed)
    with torch.autocast("cpu", torch.bfloat16):
        ways = {
            by: make_dispatcher(by, shelf, Material(examples=named_texts(seed))) for by in ("prompt", "probe")
        }
    found: dict = {"seed": seed, "correct": {}}
    for name in (*TASKS, *UNSEEN):
        texts = [one.text for one in task_of(name, seed).test[:TEST]]
        even = dict.fromkeys(shelf.names, 1 / len(shelf.names))
        decisions = {
            "base": by_name(shelf, {}, rows=len(texts)),
            "mean": by_name(shelf, even, rows=len(texts)),
            "arrow": by_name(shelf, {}, rows=len(texts)),
        }
        with torch.autocast("cpu", torch.bfloat16):
            decisions |= {by: decide(texts) for by, decide in ways.items()}
        found["correct"][name] = {
            way: correct(shelf, name, seed, one, tokens=way == "arrow") for way, one in decisions.items()
        }
        shares = {way: round(statistics.fmean(one), 3) for way, one in found["correct"][name].items()}
        print(name, seed, shares, flush=True)
    made = commit()
    return {
        **found,
        "cpu": round(time.process_time() - began, 1),
        "commit": made.model_dump() if made else None,
    }


def difference(cells: Sequence[dict], tasks: Sequence[str], one: str, other: str) -> Figure:
    """Mean difference in right answers; the interval draws seeds, tasks within them, and texts within those."""
    table = [
        [
            np.subtract(*(np.array(cell["correct"][task][way], dtype=float) for way in (one, other)))
            for task in tasks
        ]
        for cell in cells
    ]
    random, draws = np.random.default_rng(0), []
    for _ in range(2000):
        parts = [
            table[at][which]
            for at in random.integers(0, len(table), len(table))
            for which in random.integers(0, len(tasks), len(tasks))
        ]
        draws.append(np.mean([random.choice(part, len(part)).mean() for part in parts]))
    low, high = np.quantile(draws, [0.025, 0.975])
    value = float(np.mean([part.mean() for row in table for part in row]))
    count = sum(len(part) for row in table for part in row)
    return Figure(round(value, 4), round(float(low), 4), round(float(high), 4), n=count)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, and keep the figures for the summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--only-summary", action="store_true")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    place = PLACE / home().resolve().name
    for seed in [] if chosen.only_summary else chosen.seeds:
        if not (place / f"{seed}.json").exists():
            write_json(place / f"{seed}.json", measure(seed))
    cells = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(place.glob("*.json"))]
    if not cells:
        raise SystemExit("adapt_arrow: nothing has been measured yet.")
    figures = {}
    for kind, tasks in (("train", TASKS), ("unseen", UNSEEN)):
        for way in WAYS[1:]:
            figures[f"arrow.{kind}.{way}_over_base"] = difference(cells, tasks, way, "base")
        figures[f"arrow.{kind}.arrow_over_probe"] = difference(cells, tasks, "arrow", "probe")
    for name, figure in figures.items():
        print(f"{name}: {figure.value} ({figure.low} to {figure.high}), n {figure.n}")
    keep_part("arrow", figures=figures, numbers={"test": TEST, "cells": cells})


if __name__ == "__main__":
    main()
