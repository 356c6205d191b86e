"""Adaptation, measured: experts by reinforcement learning beside next-token training, LoRA and IA3.

    python -m benchmarks.adapt [--seeds 0 1 2] [--methods svf_rl …] [--tasks graded/stories …] [--minutes 240]
                               [--only-summary]

The base is trained first where it is not there yet (benchmarks/adapt_base.py). Every training is a cell; cells are
kept, and a training that was interrupted goes on at its last state, as long as the code that decides the numbers is the
same. At the end everything measured so far, by the other parts of the benchmark too (unseen tasks, speed, across
models), becomes a dated record and comparison/adapt/summary.json.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from benchmarks.adapt_base import BASE, base
from benchmarks.adapt_plan import METHODS, SEEDS, TASKS, TEST, Cell, cells, method_of, settings_of
from umaf.evaluation.provenance import commit
from umaf.experts.decompose import Factored, decompose, svf_modules
from umaf.experts.fit import rewards_of
from umaf.experts.policy import Policy, ia3, lora, svf
from umaf.experts.rewards import RIGHT, judge
from umaf.experts.settings import TrainSettings
from umaf.experts.train import reward_name, state_folder, take_best, train_expert, train_policy
from umaf.files import hash_texts, write_json
from umaf.models import Model, open_model
from umaf.tasks.door import load_task
from umaf.tasks.task import Example, Task

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "out" / "adapt"
# What decides a cell's numbers; the cache has a folder per state of it, so that no two states mix.
SOURCES = (
    "benchmarks/adapt_base.py",
    "benchmarks/adapt_plan.py",
    "src/umaf/experts/reinforce.py",
    "src/umaf/experts/rollout.py",
    "src/umaf/experts/supervised.py",
    "src/umaf/experts/policy.py",
    "src/umaf/tasks/graded/*.py",
    "src/umaf/tasks/graded/plan.json",
    "constraints.txt",
)


@functools.cache
def home() -> Path:
    """Give the folder of cells and experts of the code as it is now."""
    files = sorted(path for pattern in SOURCES for path in ROOT.glob(pattern))
    return WORK / hash_texts(path.read_text(encoding="utf-8") for path in files)[:12]


def expert_folder(task: str, seed: int) -> Path:
    """Give the folder of the expert that svf_rl trained for a task by a seed."""
    return home() / "experts" / f"{task.partition('/')[2]}--{seed}"


@functools.cache
def opened() -> Model:
    """Open the base, trained first where need be."""
    return open_model(base(BASE))


@functools.cache
def factored() -> Mapping[str, Factored]:
    """Decompose the base once."""
    return decompose(opened(), svf_modules(opened()), cache=WORK / "factored")


@functools.cache
def task_of(name: str, seed: int) -> Task:
    """Draw a task by a seed."""
    return load_task(name, seed=seed)


def correct(policy: Policy, task: Task, examples: Sequence[Example], settings: TrainSettings) -> list[bool]:
    """Say which examples are answered rightly, by greedy answers and the task's reward."""
    with judge(reward_name(task, settings), run_code=settings.run_code) as judged:
        found = rewards_of(policy, task.cue, examples, judged, settings)
    return [value >= RIGHT for value in found]


def measure(cell: Cell, place: Path) -> dict:
    """Train one cell and ask it the test texts, the bare base too."""
    task, settings, method = task_of(cell.task, cell.seed), settings_of(cell), method_of(cell.method)
    model, folder = opened(), place / "work" / cell.name
    resumed = state_folder(expert_folder(cell.task, cell.seed)).exists() or state_folder(folder).exists()
    began, wall = time.process_time(), time.perf_counter()
    if method.trains == "svf" and method.objective == "reinforce":
        # These are the experts that the rest of the benchmark uses, so they are written whole.
        folder = expert_folder(cell.task, cell.seed)
        known = folder.exists()
        if not known:
            train_expert(model, task, settings=settings, folder=folder, factored=factored())
        return _of_expert(
            cell, folder, None if known else (time.process_time() - began, time.perf_counter() - wall)
        )
    policy = {
        "svf": lambda: svf(model, factored()),
        "lora": lambda: lora(model, rank=settings.rank, seed=cell.seed),
        "ia3": lambda: ia3(model),
    }[method.trains]()
    fitted = train_policy(policy, task, settings=settings, folder=folder)
    cost = (time.process_time() - began, time.perf_counter() - wall)
    take_best(policy, fitted)
    for path in state_folder(folder).glob("*"):
        path.unlink()
    # Of a training that was interrupted only the last part was timed.
    return _scored(cell, policy, list(fitted.curve), None if resumed else cost)


def _of_expert(cell: Cell, folder: Path, cost: tuple[float, float] | None) -> dict:
    from umaf.experts.attach import attached
    from umaf.experts.expert import load_expert

    expert, model = load_expert(folder), opened()
    policy = Policy(
        model, expert.z, lambda: attached(model, factored(), expert.z), lambda: attached(model, {}, {})
    )
    curve = [{name: values for name, values in expert.card.curves.items()}]
    return {
        **_scored(cell, policy, curve, cost),
        "bytes": sum(path.stat().st_size for path in folder.iterdir()),
    }


def _scored(cell: Cell, policy: Policy, curve: list, cost: tuple[float, float] | None) -> dict:
    task, settings = task_of(cell.task, cell.seed), settings_of(cell)
    examples = task.test[:TEST]
    return {
        "correct": correct(policy, task, examples, settings),
        "base": list(base_correct(cell.task, cell.seed)),
        "parameters": policy.count,
        "cpu": None if cost is None else round(cost[0], 2),
        "wall": None if cost is None else round(cost[1], 2),
        "curve": curve,
    }


@functools.cache
def base_correct(name: str, seed: int) -> tuple[bool, ...]:
    """Ask the bare base the test texts of a task."""
    task, settings = task_of(name, seed), settings_of(Cell("svf_rl", name, seed))
    bare = Policy(opened(), {}, lambda: _nothing(), lambda: _nothing())
    return tuple(correct(bare, task, task.test[:TEST], settings))


def _nothing():
    from contextlib import nullcontext

    return nullcontext()


def run(chosen: Sequence[Cell], *, minutes: float) -> None:
    """Measure the cells that are missing; begin no new one after so many minutes."""
    place, until = home(), time.monotonic() + 60 * minutes
    for cell in chosen:
        path = place / "cells" / f"{cell.name}.json"
        if path.exists() or time.monotonic() > until:
            continue
        result = measure(cell, place)
        found = commit()
        write_json(path, {"cell": vars(cell), "commit": found.model_dump() if found else None, **result})
        share, bare = (sum(result[key]) / len(result[key]) for key in ("correct", "base"))
        print(f"{cell.name}: {bare:.3f} -> {share:.3f}, {result['cpu']} s", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, then write record and summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--methods", nargs="+", default=[method.name for method in METHODS])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--minutes", type=float, default=480.0, help="begin no new training after this long")
    parser.add_argument("--only-summary", action="store_true")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if not asked.only_summary:
        wanted = [
            cell
            for cell in cells()
            if cell.seed in asked.seeds and cell.method in asked.methods and cell.task in asked.tasks
        ]
        run(wanted, minutes=asked.minutes)
    from benchmarks.adapt_summary import summarise

    summarise(home())


if __name__ == "__main__":
    main()
