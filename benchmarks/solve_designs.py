"""Designs of both routes side by side, on development tasks: how the ones in the package were chosen.

    python -m benchmarks.solve_designs [--source bert-1m ...] [--target llama-1m ...] [--task dev/seven ...] [--record]

Each source is fine-tuned on the task's labels (once, kept in the cache); the designs see texts of the train split
without their labels; the LoRA on labels is the oracle. Held-out capabilities are refused: designs are chosen on others.
With --record the rows become a dated record under comparison/solve-designs/.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from unittest.mock import patch

from torch import Tensor

from umaf.adapters import attach, combine, truncate
from umaf.errors import TaskError
from umaf.evaluation.evaluate import chosen_examples, evaluate
from umaf.evaluation.record import new_record, write_record
from umaf.evaluation.statistics import recovery
from umaf.generation import newton
from umaf.generation.distill import distill
from umaf.generation.goals import Goal, labelled_goal
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

HOME = Path(__file__).resolve().parents[1] / "comparison" / "solve-designs"
RANK = 8
Factors = dict[str, tuple[Tensor, Tensor]]
Designs = dict[str, Callable[[], Factors]]
# Tasks regrouped from classes that are not held out, broader than those of the bank.
REGROUPED = {
    "dev/spheres": (
        "sphere",
        {
            "money": "balance bill_balance bill_due pay_bill transfer transactions freeze_account report_fraud "
            "interest_rate min_payment credit_score spending_history routing order_checks pin_change",
            "work": "payday pto_balance pto_request pto_used w2 taxes income schedule_meeting meeting_schedule "
            "calendar direct_deposit rollover_401k insurance reminder todo_list",
            "talk": "are_you_a_bot do_you_have_pets fun_fact goodbye greeting how_old_are_you meaning_of_life "
            "tell_joke thank_you what_are_your_hobbies what_is_your_name where_are_you_from who_made_you "
            "who_do_you_work_for what_can_i_ask_you",
        },
    ),
    "dev/seven": (
        "intent",
        {
            "clock": "alarm timer", "number": "calculator measurement_conversion", "day": "date time",
            "word": "definition spelling", "phone": "find_phone make_call", "game": "flip_coin roll_dice",
            "place": "share_location weather",
        },
    ),
}  # fmt: skip


def development(name: str) -> Task:
    """Load a task that designs may be chosen on; validation texts join the test, because tests are small.

    Raises:
        TaskError: the task is held out.
    """
    if name in bank.names("heldout"):
        raise TaskError(f"{name} is held out; compare designs on tasks of the train or validation split.")
    if name in REGROUPED:
        cue, groups = REGROUPED[name]
        task = bank.regroup(
            load_task("clinc150"), name, cue, {word: classes.split() for word, classes in groups.items()}
        )
    else:
        task = load_task(name)
    return replace(task, test=task.test + task.validation)


def designs(source: Source, goals: list[Goal], target: Model, seed: int) -> Designs:
    """Name the ways to make an adapter from one source for one target."""
    made: Designs = {}
    if not goals[0].is_function:
        made |= one_shot(source, goals, target)
    for name, floor in (("solve", newton.FLOOR), ("solve, curvature floor 0.02", 0.02)):
        made[name] = partial(_floored, floor, target, goals, seed)
    made |= {
        "solve, 5 linearisations": lambda: solve(target, goals, iterations=5, rank=RANK, seed=seed).factors,
        "solve, 64 probes a system": lambda: solve(target, goals, most=64, rank=RANK, seed=seed).factors,
        "distill": lambda: distill(target, goals, rank=RANK, seed=seed).factors,
        "distill, at twice the rate": lambda: (
            distill(target, goals, rate=1.28 / target.width, rank=RANK, seed=seed).factors
        ),
        "distill, 100 steps after 4 linearisations": lambda: (
            distill(target, goals, steps=100, iterations=4, rank=RANK, seed=seed).factors
        ),
        "distill, as many steps as the LoRA on labels": lambda: (
            distill(target, goals, steps=300, rank=RANK, seed=seed).factors
        ),
    }
    return made


def one_shot(source: Source, goals: list[Goal], target: Model) -> Designs:
    """Name the closed forms of one regression."""

    def residual() -> Factors:
        if source.base is None:
            raise TaskError(f'"{source.model.name}" came without its base; name the model it was tuned from.')
        return residual_shift(
            source.model, source.base, target, source.probes[:384], cue=source.cue, rank=RANK, truncate=True
        )

    def both() -> Factors:
        first = residual()
        second = output_shift(attach(target, first), goals, rank=RANK, truncate=True)
        return truncate(combine([first, second], [1, 1]), RANK)[0]

    return {
        "output shift": lambda: output_shift(target, goals, rank=RANK, truncate=True),
        "residual shift": residual,
        "residual, then output": both,
    }


def _floored(floor: float, target: Model, goals: list[Goal], seed: int) -> Factors:
    with patch.object(newton, "FLOOR", floor):
        return solve(target, goals, rank=RANK, seed=seed).factors


def compare(task: Task, base: str, target: Model, settings: argparse.Namespace) -> list[dict]:
    """Score every design: share of the way from the bare target to the labels' LoRA, and CPU seconds."""
    seed = settings.seed
    examples = chosen_examples(task, split="train", limit=settings.probes, seed=seed)
    probes = tuple(dict.fromkeys(example.text for example in examples))
    folder = expert(base, task, settings.cache, seed=seed)
    source = Source(open_model(folder), probes, task.cue, task.labels, open_model(base))
    goals = goals_of([source], target, truncate=True)
    if not goals:
        raise TaskError(f'"{source.model.name}" has nothing to move on {task.name}; choose another task.')
    texts, answers = zip(*((e.text, e.answer) for e in task.train), strict=True)
    labels = labelled_goal(texts, task.cue, task.labels, answers)
    made: Designs = {
        "LoRA on labels": lambda: train_lora(target, [labels], rank=RANK, schedule=Schedule(), seed=seed)
    }
    made |= designs(source, goals, target, seed)

    def score(model: Model) -> float:
        return evaluate(model, task, limit=settings.limit, seed=seed).value

    bare, known = score(target), score(source.model)
    rows, top, full = [], 0.0, 0.0
    for name, make in made.items():
        if name != "LoRA on labels" and settings.design and name not in settings.design:
            continue
        began = time.process_time()
        factors = make()
        seconds = time.process_time() - began
        value = score(attach(target, factors))
        if name == "LoRA on labels":
            top, full = value, seconds
        share = recovery(value, bare, top)
        rows.append(
            {
                "task": task.name, "source": base, "target": target.name, "design": name, "bare": bare,
                "of_source": known, "score": value, "recovery": share, "cpu": seconds, "cpu_over_lora": seconds / full,
            }
        )  # fmt: skip
        shown = "" if share is None else f"{share:.2f}"
        print(
            f"| {task.name} | {base} | {target.name} | {name} | {value:.3f} | {shown} | {seconds / full:.2f} |",
            flush=True,
        )
    return rows


def main() -> None:
    """Read the arguments and compare every source, target and task."""
    parser = argparse.ArgumentParser(description="Designs of both routes, side by side.")
    parser.add_argument("--source", nargs="+", default=["zoo:bert-1m"], help="fine-tuned on the task")
    parser.add_argument("--target", nargs="+", default=["zoo:llama-1m"], help="one for each source")
    parser.add_argument("--task", nargs="+", default=["dev/spheres", "dev/seven"], help="not held out")
    parser.add_argument("--design", nargs="+", default=[], help="only these designs")
    parser.add_argument("--probes", type=int, default=1024)
    parser.add_argument("--limit", type=int, default=250, help="test texts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true", help="write a dated record")
    parser.add_argument("--cache", type=Path, default=Path("out/solve-designs"), help="keeps experts")
    settings = parser.parse_args()
    print(
        "| task | source | target | design | score | recovery | CPU / LoRA's |\n|---|---|---|---|---|---|---|"
    )
    rows = []
    for name in settings.task:
        task = development(name)
        for base, target in zip(settings.source, settings.target, strict=True):
            rows += compare(task, base, open_model(target), settings)
    if settings.record:
        config = {key: value for key, value in vars(settings).items() if key not in ("cache", "record")}
        record = new_record("solve-designs", config=config, seed=settings.seed, numbers={"rows": rows})
        write_record(HOME / f"{datetime.now(timezone.utc):%Y-%m-%d-%H%M}.json", record)


if __name__ == "__main__":
    main()
