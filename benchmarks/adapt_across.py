"""An expert of one zoo model on another: aligned by activations, by index order, and shuffled.

    python -m benchmarks.adapt_across [--seeds 0 1 2] [--pairs llama-1m:gpt2-1m …] [--tasks made/tense …]
                                      [--minutes 240] [--only-summary]

Per pair of models, task and seed: an expert of the source is trained on the labels (next-token), carried to the target
in three ways, and the target is asked the test texts. Beside them stand the bare target and an expert that the
target trained on the labels itself. The alignment sees texts and the words that labels are, and no text's label. Its
settings were settled on the tasks of DEVELOPMENT, which are not
reported. A cell whose source expert gains less than LEARNED on the source's validation texts has nothing to carry;
it is kept as it is, and counts in no figure. Index order is measured between different shapes too, by share of rank.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch

from benchmarks.adapt_parts import keep_part
from umaf import seeds
from umaf.evaluation.provenance import commit
from umaf.evaluation.statistics import mean_interval
from umaf.evaluation.summary import Figure
from umaf.experts import Expert, attached, bounded, decompose, new_card, svf_modules
from umaf.experts.across import aligned
from umaf.experts.by_number import in_order, shuffled
from umaf.files import hash_texts, write_json
from umaf.generation.decisions import ask
from umaf.generation.goals import labelled_goal
from umaf.generation.train import loss
from umaf.models import Model, open_model
from umaf.readout import label_scores
from umaf.tasks.door import load_task
from umaf.tasks.task import Example, Task

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "out" / "adapt" / "across"
SOURCES = (
    "benchmarks/adapt_across.py",
    "src/umaf/experts/across.py",
    "src/umaf/experts/by_number.py",
    "src/umaf/experts/vocabulary.py",
    "src/umaf/tasks/generated/*.py",
    "constraints.txt",
)
PAIRS = ("llama-1m:gpt2-1m", "gpt2-1m:llama-1m", "llama-1m:llama-5m")
DEVELOPMENT = ("made/question", "made/formality")
TASKS = ("made/tense", "made/intent", "made/certainty", "made/politeness")
SEEDS = (0, 1, 2)
TEXTS, TEST, VALIDATION = 384, 200, 200
STEPS, RATE, BATCH = 150, 0.07, 16
LEARNED = 0.1
WAYS = ("aligned", "order", "shuffled", "own")


@functools.cache
def opened(name: str) -> Model:
    """Open a zoo model once."""
    return open_model(f"zoo:{name}")


@functools.cache
def factored(name: str):
    """Decompose a zoo model once."""
    model = opened(name)
    return decompose(model, svf_modules(model), cache=ROOT / "out" / "adapt" / "factored")


@functools.cache
def trained(name: str, task_name: str, seed: int) -> Expert:
    """Train an expert on the labels, by cross-entropy."""
    model, task = opened(name), load_task(task_name, seed=seed)
    free = {key: torch.zeros_like(f.s, requires_grad=True) for key, f in factored(name).items()}
    optimiser = torch.optim.Adam(free.values(), lr=RATE)
    texts, answers = [e.text for e in task.train], [e.answer for e in task.train]
    asked = ask(model, labelled_goal(texts, task.cue, task.labels, answers))
    draw = seeds.generator(seed, "across", name, task_name)
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = RATE * (1 - step / STEPS)
        rows = torch.randint(len(texts), (BATCH,), generator=draw).tolist()
        with attached(model, factored(name), {key: bounded(p) for key, p in free.items()}, form="whole"):
            value = loss(asked, rows)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        optimiser.step()
    z = {key: bounded(p.detach()) for key, p in free.items()}
    return Expert(task_name.replace("/", "-"), z, new_card(model, list(z), objective="next_token"))


def answered(
    name: str, task: Task, examples: Sequence[Example], expert: Expert | None
) -> tuple[list[bool], list[float]]:
    """Say which texts a model answers rightly, and its log-probability of each right answer."""
    model = opened(name)
    with attached(model, factored(name), expert.z) if expert else nullcontext():
        scores = label_scores(model, [e.text for e in examples], task.labels, task.cue)
    truth = torch.tensor([task.labels.index(e.answer) for e in examples])
    return (scores.argmax(1) == truth).tolist(), scores[torch.arange(len(truth)), truth].tolist()


def measure(pair: str, task_name: str, seed: int) -> dict:
    """Measure one cell: validation gain of the source's expert, and the target's test answers in every way."""
    source, target = pair.split(":")
    task, expert = load_task(task_name, seed=seed), trained(source, task_name, seed)
    looked = task.validation[:VALIDATION]
    right = [sum(answered(source, task, looked, one)[0]) / len(looked) for one in (None, expert)]
    found: dict = {"source": right, "learned": right[1] - right[0] >= LEARNED, "right": {}, "nats": {}}
    if not found["learned"]:
        return found
    texts = [e.text for e in task.train[:TEXTS]]
    began = time.process_time()
    fitted = aligned(
        expert,
        (opened(source), opened(target)),
        (factored(source), factored(target)),
        texts,
        cue=task.cue,
        labels=task.labels,
    )
    found["cpu"] = round(time.process_time() - began, 2)
    ways = {
        "bare": None,
        "aligned": fitted,
        "order": in_order(expert, opened(source), opened(target)),
        "shuffled": shuffled(expert, opened(source), opened(target), seed=seed),
        "own": trained(target, task_name, seed),
    }
    for way, one in ways.items():
        found["right"][way], found["nats"][way] = answered(target, task, task.test[:TEST], one)
    return found


def home() -> Path:
    """Give the folder of cells of the code as it is now."""
    files = sorted(path for pattern in SOURCES for path in ROOT.glob(pattern))
    return WORK / hash_texts(path.read_text(encoding="utf-8") for path in files)[:12]


def run(cells: Sequence[tuple[str, str, int]], *, minutes: float) -> None:
    """Measure the cells that are missing; begin no new one after so many minutes."""
    until = time.monotonic() + 60 * minutes
    for pair, task, seed in cells:
        path = home() / f"{pair.replace(':', '--')}--{task.partition('/')[2]}--{seed}.json"
        if path.exists() or time.monotonic() > until:
            continue
        result, where = measure(pair, task, seed), commit()
        write_json(
            path,
            {"pair": pair, "task": task, "seed": seed, "commit": where.model_dump() if where else None}
            | result,
        )
        shares = {way: round(sum(found) / len(found), 3) for way, found in result["right"].items()}
        print(
            path.stem, [round(share, 3) for share in result["source"]], shares, result.get("cpu"), flush=True
        )


def summarise() -> dict[str, Figure]:
    """Keep the figures of everything measured so far for the summary of the whole benchmark."""
    cells = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(home().glob("*.json"))]
    used = [cell for cell in cells if cell["learned"]]
    if not used:
        raise SystemExit("adapt_across: nothing has been measured yet.")
    contrasts = {
        "aligned_minus_shuffled": ("aligned", "shuffled", "> 0, interval above 0"),
        "aligned_minus_order": ("aligned", "order", "> 0"),
        "order_minus_shuffled": ("order", "shuffled", "> 0"),
        "aligned_over_base": ("aligned", "bare", "> 0"),
        "own_over_base": ("own", "bare", None),
    }
    figures = {}
    for unit, prefix in (("right", "cross_model"), ("nats", "cross_model.nats")):
        for name, (over, under, aim) in contrasts.items():
            figures[f"{prefix}.{name}"] = _contrast(used, unit, (over, under), aim)
    for pair in dict.fromkeys(cell["pair"] for cell in used):
        mine = [cell for cell in used if cell["pair"] == pair]
        figures[f"cross_model.aligned_minus_shuffled.{pair.replace(':', '_to_')}"] = _contrast(
            mine, "right", ("aligned", "shuffled"), "> 0"
        )
    config = {
        "pairs": PAIRS,
        "tasks": TASKS,
        "development": DEVELOPMENT,
        "texts": TEXTS,
        "test": TEST,
        "learned": LEARNED,
    }
    keep_part(
        "across", figures=figures, numbers={"config": config, "cells": [_short(cell) for cell in cells]}
    )
    return figures


def _contrast(cells: Sequence[Mapping], unit: str, ways: tuple[str, str], aim: str | None) -> Figure:
    """Mean difference per text; the interval draws cells whole."""
    values, groups = [], []
    for cell in cells:
        over, under = (cell[unit][way] for way in ways)
        values += [float(a) - float(b) for a, b in zip(over, under, strict=True)]
        groups += [f"{cell['pair']} {cell['task']} {cell['seed']}"] * len(over)
    found = mean_interval(values, groups=groups)
    return Figure(round(found.value, 4), round(found.low, 4), round(found.high, 4), n=len(cells), aim=aim)


def _short(cell: Mapping) -> dict:
    kept = {key: cell.get(key) for key in ("pair", "task", "seed", "source", "learned", "cpu", "commit")}
    for unit in ("right", "nats"):
        kept[unit] = {way: round(sum(found) / len(found), 4) for way, found in cell[unit].items()}
    return kept


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, then keep the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS))
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--minutes", type=float, default=480.0, help="begin no new cell after this long")
    parser.add_argument("--only-summary", action="store_true")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if not asked.only_summary:
        run([(p, t, s) for p in asked.pairs for s in asked.seeds for t in asked.tasks], minutes=asked.minutes)
    for name, figure in summarise().items():
        print(f"{name}: {figure.value} [{figure.low}, {figure.high}], n {figure.n}")


if __name__ == "__main__":
    main()
