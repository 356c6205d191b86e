"""Unseen tasks, measured: the base, the best single expert, and experts chosen by prompt, classifier, probe or shots.

    python -m benchmarks.adapt_unseen [--seeds 0 1 2] [--tasks graded/two_steps ...] [--minutes 120] [--only-summary]

The experts are those that benchmarks/adapt.py trained on the train tasks (one shelf per seed); no expert and no
dispatcher has seen a text of the unseen tasks. A cell is one unseen task by one seed:

- shots are the first texts of the task's train side, nested: 3 are among the 5, 5 among the 10;
- the best single expert is chosen on the same 10 shots as the mixture it is compared with (and, as a second
  comparison with more information, on 60 validation texts); nothing is ever chosen on test;
- the classifier is trained, and the probe fitted, on texts of the train tasks alone;
- the search draws 16 candidates, keeps 4 and goes 8 rounds (128 mixtures; the published one looks at 1600);
- matrices are multiplied in bfloat16 everywhere, as in the experts' training and test.

Figures are differences in the share of right answers on the same test texts, mean over tasks and seeds, with intervals
that draw seeds, tasks and texts.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.adapt import expert_folder, factored, home, opened, task_of
from benchmarks.adapt_parts import keep_part
from benchmarks.adapt_plan import LONGEST, SEEDS, TASKS, UNSEEN
from umaf.dispatch.adaptive import AdaptiveModel
from umaf.dispatch.chat import asked
from umaf.dispatch.classifier import train_classifier
from umaf.dispatch.decision import Decision, Dispatcher
from umaf.dispatch.decode import Drawing
from umaf.dispatch.dispatchers import Material, make_dispatcher
from umaf.dispatch.few_shot import fitness_on, mix_by_shots
from umaf.dispatch.shelf import Shelf, by_name
from umaf.evaluation.provenance import commit
from umaf.evaluation.summary import Figure
from umaf.experts.expert import Expert, load_expert
from umaf.experts.rewards import RIGHT, judge
from umaf.experts.settings import TrainSettings
from umaf.files import hash_texts, write_json
from umaf.search import CrossEntropy
from umaf.tasks.graded import reward_of

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (
    "benchmarks/adapt_unseen.py",
    "src/umaf/dispatch/few_shot.py",
    "src/umaf/dispatch/naming.py",
    "src/umaf/dispatch/probe.py",
    "src/umaf/dispatch/classifier.py",
    "src/umaf/search/cem.py",
)
TEST, VALIDATION, BATCH = 120, 60, 60
SHOTS = (3, 5, 10, 20)
LAYERS_AT = 10
NAMED = 120
"""Texts per train task that the classifier and the probe learn from."""
STAGES = ("headline", "more")
SEARCH = CrossEntropy(population=16, elites=4, iterations=8)


def place() -> Path:
    """Give the folder of cells of the code, and of the experts, as they are now."""
    files = [ROOT / name for name in SOURCES]
    own = hash_texts(path.read_text(encoding="utf-8") for path in files)[:12]
    return home() / "unseen" / own


@functools.cache
def shelf_of(seed: int) -> Shelf:
    """Open the shelf of a seed: an expert per train task."""
    folders = [expert_folder(task, seed) for task in TASKS]
    missing = [folder.name for folder in folders if not folder.exists()]
    if missing:
        raise SystemExit(
            f"adapt_unseen: the experts {', '.join(missing)} are missing; run benchmarks.adapt first."
        )
    experts = [load_expert(folder) for folder in folders]
    named = [
        Expert(task.partition("/")[2], one.z, one.card.model_copy(update={"description": ""}))
        for task, one in zip(TASKS, experts, strict=True)
    ]
    return Shelf(opened(), tuple(named), factored())


def named_texts(seed: int) -> dict[str, tuple[str, ...]]:
    """Give texts by the expert they are for, from the train sides of the train tasks."""
    return {
        task.partition("/")[2]: tuple(one.text for one in task_of(task, seed).train[:NAMED]) for task in TASKS
    }


@functools.cache
def dispatcher_of(by: str, seed: int) -> Dispatcher:
    """Make a dispatcher that learns from the train tasks alone, once per seed."""
    shelf = shelf_of(seed)
    if by != "classifier":
        return make_dispatcher(by, shelf, Material(examples=named_texts(seed)))
    folder = place() / "classifiers" / str(seed)
    if not folder.exists():
        settings = TrainSettings(
            objective="next_token",
            reward="label",
            steps=60,
            rate=0.03,
            patience=0,
            seed=seed,
            validation=60,
            bfloat16=True,
        )
        train_classifier(shelf, named_texts(seed), folder, settings=settings)
    return make_dispatcher("classifier", shelf, Material(classifier=load_expert(folder)))


class Cell:
    """One unseen task by one seed."""

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.seed, self.task, self.shelf = name, seed, task_of(name, seed), shelf_of(seed)
        self.reward = reward_of(name) or "exact"
        self.adaptive = AdaptiveModel(self.shelf)
        self.test = self.task.test[:TEST]

    def correct(self, decision: Decision) -> tuple[list[bool], float]:
        """Ask the test texts, each with its mixture; gives which are right, and the seconds of writing."""
        requests = [asked(self.shelf.model, one.text, self.task.cue) for one in self.test]
        begun = time.perf_counter()
        replies = []
        for start in range(0, len(requests), BATCH):
            rows = list(range(start, min(start + BATCH, len(requests))))
            drawing = Drawing(LONGEST[self.reward])
            with torch.autocast("cpu", torch.bfloat16):
                replies += self.adaptive.generate(
                    [requests[row] for row in rows], drawing=drawing, experts=decision.take(rows)
                )
        seconds = time.perf_counter() - begun
        with judge(self.reward, run_code=self.reward == "code") as judged:
            found = judged([reply.text for reply in replies], self.test)
        return [value >= RIGHT for value in found], seconds

    def material(self, examples, *, per="model") -> Material:
        """Give shots as the search wants them."""
        return Material(
            shots=tuple(examples),
            cue=self.task.cue,
            reward=self.reward,
            run_code=self.reward == "code",
            max_new_tokens=LONGEST[self.reward],
            per=per,
            search=SEARCH.__class__(**{**vars(SEARCH), "seed": self.seed}),
        )

    def best_on(self, examples) -> str:
        """Choose the single expert that does best on examples; ties by likelihood."""
        with torch.autocast("cpu", torch.bfloat16):
            found = fitness_on(self.shelf, self.material(examples), torch.eye(len(self.shelf.names)))
        pairs = list(zip(found.accuracy.tolist(), found.likelihood.tolist(), strict=True))
        return self.shelf.names[max(range(len(pairs)), key=lambda at: pairs[at])]

    def headline(self, found: dict) -> None:
        """Measure what the headline figures rest on."""
        rows = len(self.test)
        for name in ("base", *self.shelf.names):
            decision = by_name(self.shelf, {} if name == "base" else {name: 1.0}, rows=rows)
            found["correct"][name], found["seconds"][name] = self.correct(decision)
        self._mix(10, found)
        for by in ("prompt", "classifier"):
            self._dispatched(by, found)

    def more(self, found: dict) -> None:
        """Measure the rest: other numbers of shots, weights per layer, the probe, and a choice by validation."""
        found["chosen"]["validation"] = self.best_on(self.task.validation[:VALIDATION])
        self._dispatched("probe", found)
        layered = self.material(self.task.train[:LAYERS_AT], per="layer")
        self._mixed(f"fewshot{LAYERS_AT}_layers", layered, found)
        for count in (count for count in SHOTS if count != 10):
            self._mix(count, found)

    def _mix(self, count: int, found: dict) -> None:
        shots = self.task.train[:count]
        found["chosen"][f"shots{count}"] = self.best_on(shots)
        self._mixed(f"fewshot{count}", self.material(shots), found)

    def _dispatched(self, by: str, found: dict) -> None:
        decide = dispatcher_of(by, self.seed)
        texts = [one.text for one in self.test]
        begun = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            decisions = [decide(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
        found["seconds"][f"{by}.first"] = time.perf_counter() - begun
        whole = Decision(
            self.shelf.names,
            torch.cat([one.weights for one in decisions]),
            sum((one.reasons for one in decisions), ()),
        )
        found["correct"][by], found["seconds"][by] = self.correct(whole)
        found["weights"][by] = whole.weights.mean(0).tolist()

    def _mixed(self, name: str, material: Material, found: dict) -> None:
        begun = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            weights, search = mix_by_shots(self.shelf, material)
        found["seconds"][f"{name}.first"] = time.perf_counter() - begun
        rows = weights.unsqueeze(0).expand(len(self.test), *weights.shape)
        decision = Decision(self.shelf.names, rows.clone(), ("",) * len(self.test))
        found["correct"][name], found["seconds"][name] = self.correct(decision)
        found["weights"][name] = (weights if weights.dim() == 1 else weights.mean(-1)).tolist()
        found["chosen"][f"{name}.score"] = list(search.score)


def run(tasks: Sequence[str], chosen: Sequence[int], *, minutes: float) -> None:
    """Measure what is missing, the headline of every cell first; begin nothing new after so many minutes."""
    until = time.monotonic() + 60 * minutes
    for stage, seed, task in itertools.product(STAGES, chosen, tasks):
        path = place() / stage / f"{task.partition('/')[2]}--{seed}.json"
        if path.exists() or time.monotonic() > until:
            continue
        found: dict = {"correct": {}, "seconds": {}, "chosen": {}, "weights": {}}
        getattr(Cell(task, seed), stage)(found)
        made = commit()
        write_json(path, {"task": task, "seed": seed, "commit": made.model_dump() if made else None, **found})
        shares = {name: round(statistics.fmean(right), 3) for name, right in found["correct"].items()}
        print(stage, task, seed, shares, found["chosen"], flush=True)


def read() -> dict[tuple[str, int], dict]:
    """Read the cells measured so far, their stages put together."""
    found: dict[tuple[str, int], dict] = {}
    for stage in STAGES:
        for path in sorted((place() / stage).glob("*.json")):
            part = json.loads(path.read_text(encoding="utf-8"))
            cell = found.setdefault((part["task"], part["seed"]), {})
            for key in ("correct", "seconds", "chosen", "weights"):
                cell.setdefault(key, {}).update(part[key])
    return found


def difference(cells: dict, one: str, other: str) -> Figure | None:
    """Mean difference in right answers; the interval draws seeds, tasks within them, and texts within those."""
    table: dict[int, list[np.ndarray]] = {}
    for (_, seed), cell in sorted(cells.items(), key=lambda item: item[0][1]):
        right = cell["correct"]
        if any(cell["chosen"].get(name, name) not in right for name in (one, other)):
            continue
        pair = [right[cell["chosen"].get(name, name)] for name in (one, other)]
        table.setdefault(seed, []).append(np.subtract(*np.array(pair, dtype=float)))
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


def figures_of(cells: dict) -> dict[str, Figure]:
    """Give the figures of the unseen tasks, as far as they were measured."""
    pairs = {
        "gain.fewshot10_over_best_expert": ("fewshot10", "shots10"),
        "gain.fewshot10_over_best_expert.by_validation": ("fewshot10", "validation"),
        "gain.best_expert_over_base.unseen": ("shots10", "base"),
        "gain.fewshot10_layers_over_fewshot10": (f"fewshot{LAYERS_AT}_layers", "fewshot10"),
        **{f"gain.fewshot{count}_over_base.unseen": (f"fewshot{count}", "base") for count in SHOTS},
        **{f"gain.{by}_over_base.unseen": (by, "base") for by in ("prompt", "classifier", "probe")},
    }
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, and keep the figures for the summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--tasks", nargs="+", default=list(UNSEEN))
    parser.add_argument("--minutes", type=float, default=480.0, help="begin no new cell after this long")
    parser.add_argument("--only-summary", action="store_true")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if not chosen.only_summary:
        run(chosen.tasks, chosen.seeds, minutes=chosen.minutes)
    cells = read()
    if not cells:
        raise SystemExit("adapt_unseen: nothing has been measured yet.")
    figures, table = figures_of(cells), table_of(cells)
    for task, shares in table.items():
        print(task, shares)
    for name, figure in figures.items():
        print(f"{name}: {figure.value} ({figure.low} to {figure.high}), n {figure.n}")
    config = {"test": TEST, "shots": SHOTS, "search": vars(SEARCH), "named": NAMED, "unseen": UNSEEN}
    results = {f"{task}--{seed}": cell for (task, seed), cell in cells.items()}
    keep_part("unseen", figures=figures, numbers={"config": config, "table": table, "cells": results})


if __name__ == "__main__":
    main()
