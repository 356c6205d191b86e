"""Unseen tasks, measured: the base, the best single expert, and experts chosen by prompt, classifier, probe or shots.

    python -m benchmarks.adapt_unseen [--seeds 0 1 2] [--tasks graded/two_steps ...] [--stages plain ...]
                                      [--minutes 120] [--only-summary]

The experts are those that benchmarks/adapt.py trained on the train tasks (one shelf per seed); no expert and no
dispatcher has seen a text of the unseen tasks. A cell is one unseen task by one seed:

- shots are the first texts of the task's train side, nested: 3 are among the 5, 5 among the 10;
- the best single expert is chosen on the same 10 shots as the mixture it is compared with (and, as a second
  comparison with more information, on 60 validation texts); nothing is ever chosen on test;
- with 10 shots everything is done three times, each with shots of its own, and a text counts with the mean (once, as
  long as not every cell has been measured three times);
- the classifier is trained, the probe fitted, and the prompt told 16 known requests, on texts of the train tasks alone;
- the search draws 16 candidates, keeps 4 and goes 8 rounds (128 mixtures; the published one looks at 1600);
- what makes a mixture good, and how far it may lie from the base, was chosen on train tasks, each with the experts of
  the others, by validation texts;
- how much there is to be found is asked in two ways that no user has: weights searched for on as many validation texts
  as are tested (48 mixtures), and the base or expert that is best on the test itself, chosen in hindsight;
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
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from benchmarks.adapt import expert_folder, factored, home, opened, task_of
from benchmarks.adapt_parts import keep_part
from benchmarks.adapt_plan import LONGEST, SEEDS, TASKS, UNSEEN
from benchmarks.adapt_unseen_figures import DRAWS, LAYERS_AT, SHOTS, figures_of, table_of
from umaf.dispatch.adaptive import AdaptiveModel
from umaf.dispatch.chat import asked
from umaf.dispatch.classifier import train_classifier
from umaf.dispatch.decision import Decision, Dispatcher
from umaf.dispatch.decode import Drawing
from umaf.dispatch.dispatchers import Material, make_dispatcher
from umaf.dispatch.few_shot import fitness_on, mix_by_shots
from umaf.dispatch.shelf import Shelf, by_name
from umaf.evaluation.provenance import commit
from umaf.experts.expert import Expert, load_expert
from umaf.experts.rewards import RIGHT, judge
from umaf.experts.settings import TrainSettings
from umaf.files import hash_texts, write_json
from umaf.search import CrossEntropy
from umaf.tasks.graded import reward_of

ROOT = Path(__file__).resolve().parents[1]
# What decides the cells of a stage; each stage has a cache of its own.
SOURCES = {
    "plain": ("dispatch/decode.py", "experts/rollout.py"),
    "by_reward": ("dispatch/decode.py", "experts/rollout.py"),
    "named": tuple(
        f"dispatch/{name}.py"
        for name in ("beside", "classifier", "lead", "naming", "probe", "prompt", "prototypes")
    ),
    "shots": ("dispatch/few_shot.py", "search/cem.py"),
    "few_shots": ("dispatch/few_shot.py", "search/cem.py"),
    "many_shots": ("dispatch/few_shot.py", "search/cem.py"),
    "draws": ("dispatch/few_shot.py", "search/cem.py"),
    "oracle": ("dispatch/few_shot.py", "search/cem.py"),
}
TEST, VALIDATION, BATCH = 120, 60, 60
NAMED = 120
"""Texts per train task that the classifier and the probe learn from."""
SEARCH = CrossEntropy(population=16, elites=4, iterations=8)
BRIEF = CrossEntropy(population=12, elites=4, iterations=4)
"""The search on many examples, each mixture of which costs more."""


def place(stage: str) -> Path:
    """Give the folder of a stage's cells, by the code and the experts as they are now."""
    files = [ROOT / "src" / "umaf" / name for name in SOURCES[stage]]
    sizes = repr((TEST, VALIDATION, BATCH, SHOTS, LAYERS_AT, NAMED, SEARCH))
    own = hash_texts([sizes, *(path.read_text(encoding="utf-8") for path in files)])[:12]
    return home() / "unseen" / f"{stage}-{own}"


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
        # The prompt compares what the base says to what it said to known requests, so both are said alike.
        with torch.autocast("cpu", torch.bfloat16, enabled=by == "prompt"):
            return make_dispatcher(by, shelf, Material(examples=named_texts(seed)))
    folder = place("named") / "classifiers" / str(seed)
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
        """Ask the test texts, each with its mixture; gives which are right, and the CPU seconds of writing."""
        requests = [asked(self.shelf.model, one.text, self.task.cue) for one in self.test]
        begun = time.process_time()
        replies = []
        for start in range(0, len(requests), BATCH):
            rows = list(range(start, min(start + BATCH, len(requests))))
            drawing = Drawing(LONGEST[self.reward])
            with torch.autocast("cpu", torch.bfloat16):
                replies += self.adaptive.generate(
                    [requests[row] for row in rows], drawing=drawing, experts=decision.take(rows)
                )
        seconds = time.process_time() - begun
        with judge(self.reward, run_code=self.reward == "code") as judged:
            found = judged([reply.text for reply in replies], self.test)
        return [value >= RIGHT for value in found], seconds

    def material(
        self,
        examples,
        *,
        per: Literal["model", "layer"] = "model",
        fitness: Literal["likelihood", "reward"] = "likelihood",
        search: CrossEntropy = SEARCH,
    ) -> Material:
        """Give shots as the search wants them."""
        return Material(
            shots=tuple(examples),
            cue=self.task.cue,
            reward=self.reward,
            run_code=self.reward == "code",
            max_new_tokens=LONGEST[self.reward],
            per=per,
            fitness=fitness,
            search=replace(search, seed=self.seed),
        )

    def best_on(self, examples) -> str:
        """Choose the single expert that does best on examples; ties by likelihood."""
        with torch.autocast("cpu", torch.bfloat16):
            found = fitness_on(self.shelf, self.material(examples), torch.eye(len(self.shelf.names)))
        pairs = list(zip(found.accuracy.tolist(), found.likelihood.tolist(), strict=True))
        return self.shelf.names[max(range(len(pairs)), key=lambda at: pairs[at])]

    def plain(self, found: dict) -> None:
        """Ask the base and every expert by itself, and choose the best of these on shots and on validation texts."""
        for name in ("base", *self.shelf.names):
            decision = by_name(self.shelf, {} if name == "base" else {name: 1.0}, rows=len(self.test))
            found["correct"][name], found["seconds"][name] = self.correct(decision)
        for count in SHOTS:
            found["chosen"][f"shots{count}"] = self.best_on(self.task.train[:count])
        found["chosen"]["validation"] = self.best_on(self.task.validation[:VALIDATION])

    def by_reward(self, found: dict) -> None:
        """Search as Transformer-squared does: for the mean reward of greedy answers, wherever the weights lead."""
        for count in SHOTS:
            paper = self.material(self.task.train[:count], fitness="reward")
            self._mixed(f"fewshot{count}_reward", paper, found)

    def named(self, found: dict) -> None:
        """Let prompt, classifier and probe choose."""
        for by in ("prompt", "classifier", "probe"):
            self._dispatched(by, found)

    def shots(self, found: dict) -> None:
        """Search for a mixture on 10 shots."""
        self._mixed("fewshot10", self.material(self.task.train[:10]), found)

    def draws(self, found: dict) -> None:
        """Search on other sets of 10 shots."""
        for draw in range(1, DRAWS):
            examples = self.task.train[10 * draw : 10 * draw + 10]
            found["chosen"][f"shots10@{draw}"] = self.best_on(examples)
            self._mixed(f"fewshot10@{draw}", self.material(examples), found)

    def few_shots(self, found: dict) -> None:
        """Search on fewer shots."""
        for count in (count for count in SHOTS if count < 10):
            self._mixed(f"fewshot{count}", self.material(self.task.train[:count]), found)

    def many_shots(self, found: dict) -> None:
        """Search on more shots, and for weights per layer."""
        for count in (count for count in SHOTS if count > 10):
            self._mixed(f"fewshot{count}", self.material(self.task.train[:count]), found)
        layered = self.material(self.task.train[:LAYERS_AT], per="layer")
        self._mixed(f"fewshot{LAYERS_AT}_layers", layered, found)

    def oracle(self, found: dict) -> None:
        """Search on as many validation texts as are tested: what better knowledge of the task would bring."""
        self._mixed("oracle", self.material(self.task.validation[:TEST], search=BRIEF), found)

    def _dispatched(self, by: str, found: dict) -> None:
        decide = dispatcher_of(by, self.seed)
        texts = [one.text for one in self.test]
        begun = time.process_time()
        with torch.autocast("cpu", torch.bfloat16):
            decisions = [decide(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
        found["seconds"][f"{by}.first"] = time.process_time() - begun
        whole = Decision(
            self.shelf.names,
            torch.cat([one.weights for one in decisions]),
            sum((one.reasons for one in decisions), ()),
        )
        found["correct"][by], found["seconds"][by] = self.correct(whole)
        found["weights"][by] = whole.weights.mean(0).tolist()

    def _mixed(self, name: str, material: Material, found: dict) -> None:
        begun = time.process_time()
        with torch.autocast("cpu", torch.bfloat16):
            weights, search = mix_by_shots(self.shelf, material)
        found["seconds"][f"{name}.first"] = time.process_time() - begun
        rows = weights.unsqueeze(0).expand(len(self.test), *weights.shape)
        decision = Decision(self.shelf.names, rows.clone(), ("",) * len(self.test))
        found["correct"][name], found["seconds"][name] = self.correct(decision)
        found["weights"][name] = (weights if weights.dim() == 1 else weights.mean(-1)).tolist()
        found["chosen"][f"{name}.score"] = list(search.score)


def run(tasks: Sequence[str], chosen: Sequence[int], *, minutes: float, stages: Sequence[str]) -> None:
    """Measure what is missing, stage by stage; begin nothing new after so many minutes."""
    until = time.monotonic() + 60 * minutes
    for stage, seed, task in itertools.product(stages, chosen, tasks):
        path = place(stage) / f"{task.partition('/')[2]}--{seed}.json"
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
    for stage in SOURCES:
        paths = sorted(place(stage).glob("*.json"))
        if stage == "draws" and len(paths) < len(UNSEEN) * len(SEEDS):
            continue  # a mean over draws that only some cells have would weigh them differently
        for path in paths:
            part = json.loads(path.read_text(encoding="utf-8"))
            cell = found.setdefault((part["task"], part["seed"]), {})
            for key in ("correct", "seconds", "chosen", "weights"):
                cell.setdefault(key, {}).update(part[key])
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, and keep the figures for the summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--tasks", nargs="+", default=list(UNSEEN))
    parser.add_argument("--stages", nargs="+", default=list(SOURCES), choices=list(SOURCES))
    parser.add_argument("--minutes", type=float, default=480.0, help="begin no new cell after this long")
    parser.add_argument("--only-summary", action="store_true")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if not chosen.only_summary:
        run(chosen.tasks, chosen.seeds, minutes=chosen.minutes, stages=chosen.stages)
    cells = read()
    if not cells:
        raise SystemExit("adapt_unseen: nothing has been measured yet.")
    figures, table = figures_of(cells), table_of(cells)
    for task, shares in table.items():
        print(task, shares)
    for name, figure in figures.items():
        print(f"{name}: {figure.value} ({figure.low} to {figure.high}), n {figure.n}")
    config = {
        "fitness": "likelihood",
        "prior": Material().prior,
        "draws": DRAWS if any("fewshot10@1" in cell["correct"] for cell in cells.values()) else 1,
    }
    config |= {"test": TEST, "shots": SHOTS, "search": vars(SEARCH), "named": NAMED, "unseen": UNSEEN}
    results = {f"{task}--{seed}": cell for (task, seed), cell in cells.items()}
    keep_part("unseen", figures=figures, numbers={"config": config, "table": table, "cells": results})


if __name__ == "__main__":
    main()
