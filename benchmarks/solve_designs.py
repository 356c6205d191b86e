"""Designs of the route `solve` side by side: one-shot closed forms, and Gauss-Newton from zero.

Run with ``python -m benchmarks.solve_designs --source bert-1m --target llama-1m --task made/sentiment``. Each source is
fine-tuned on the task's labels (once, kept in the cache), the designs see only texts of the train split, without their
labels, and every score is on the test split. Held-out capabilities are refused: designs are chosen on others.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from umaf.adapters import attach, combine, truncate
from umaf.errors import TaskError
from umaf.evaluation.evaluate import chosen_examples, evaluate
from umaf.generation.goals import labelled_goal
from umaf.generation.outputs import output_shift
from umaf.generation.residual import residual_shift
from umaf.generation.solve import solve
from umaf.generation.sources import Source, goals_of
from umaf.generation.train import Schedule, train_lora
from umaf.models import Model, open_model
from umaf.tasks import bank
from umaf.tasks.door import load_task
from umaf.tasks.task import Task
from zoo.experts import expert

Factors = dict[str, tuple[Tensor, Tensor]]


def designs(source: Source, target: Model, rank: int, seed: int) -> dict[str, Callable[[], Factors]]:
    """Name the ways to make an adapter from one source for one target."""
    goals = goals_of([source], target, truncate=True)
    probes, base = source.probes, source.base
    if not goals or base is None:
        raise TaskError(f'"{source.model.name}" has nothing to move on these probes; choose another task.')

    def residual() -> Factors:
        return residual_shift(source.model, base, target, probes, cue=source.cue, rank=rank, truncate=True)

    def both() -> Factors:
        first = residual()
        second = output_shift(attach(target, first), goals, rank=rank, truncate=True)
        return truncate(combine([first, second], [1, 1]), rank)[0]

    return {
        "output shift": lambda: output_shift(target, goals, rank=rank, truncate=True),
        "residual shift": residual,
        "residual, then output": both,
        "gauss-newton": lambda: solve(target, goals, rank=rank, seed=seed, truncate=True).factors,
    }


def compare(task: Task, base: str, target: Model, settings: argparse.Namespace) -> None:
    """Print a row per design: score, share of the way from the bare target to the labels' LoRA, seconds."""
    seed, limit = settings.seed, settings.limit
    folder = expert(base, task, settings.cache, seed=seed)
    examples = chosen_examples(task, split="train", limit=settings.probes, seed=seed)
    probes = tuple(dict.fromkeys(example.text for example in examples))
    source = Source(open_model(folder), probes, task.cue, task.labels, open_model(base))

    def score(model: Model) -> float:
        return evaluate(model, task, limit=limit, seed=seed).value

    bare, known, top = score(target), score(source.model), None
    rows = [("source", known, 0.0), ("bare target", bare, 0.0)]
    if settings.oracle:
        began = time.perf_counter()
        texts, answers = zip(*((e.text, e.answer) for e in task.train), strict=True)
        goal = labelled_goal(texts, task.cue, task.labels, answers)
        factors = train_lora(target, [goal], rank=settings.rank, schedule=Schedule(), seed=seed)
        seconds = time.perf_counter() - began
        top = score(attach(target, factors))
        rows.append(("LoRA on labels", top, seconds))
    for name, make in designs(source, target, settings.rank, seed).items():
        began = time.perf_counter()
        factors = make()
        seconds = time.perf_counter() - began
        rows.append((name, score(attach(target, factors)), seconds))
    for name, value, seconds in rows:
        # Where labels gain less than 3 points there is nothing to recover.
        share = f"{(value - bare) / (top - bare):.2f}" if top is not None and top - bare >= 0.03 else ""
        pair = f"{task.name} | {Path(base).name} | {Path(target.name).name}"
        print(f"| {pair} | {name} | {value:.3f} | {share} | {seconds:.1f} |", flush=True)


def main() -> None:
    """Read the arguments and compare every source, target and task."""
    parser = argparse.ArgumentParser(description="Designs of the route solve, side by side.")
    parser.add_argument("--source", nargs="+", required=True, help="bases that are fine-tuned on the task")
    parser.add_argument("--target", nargs="+", required=True)
    parser.add_argument("--task", nargs="+", required=True, help="not held out")
    parser.add_argument("--probes", type=int, default=256)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--limit", type=int, default=300, help="test texts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--oracle", action="store_true", help="also train a LoRA on the labels")
    parser.add_argument(
        "--cache", type=Path, default=Path("out/solve-designs"), help="where experts are kept"
    )
    settings = parser.parse_args()
    for name in settings.task:
        if name in bank.names("heldout"):
            raise TaskError(f"{name} is held out; compare designs on tasks of the train or validation split.")
    print("| task | source | target | design | score | recovery | s |\n|---|---|---|---|---|---|---|")
    for name in settings.task:
        task = load_task(name)
        for base in settings.source:
            for target in settings.target:
                compare(task, base, open_model(target), settings)


if __name__ == "__main__":
    main()
