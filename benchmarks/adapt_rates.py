"""What holds experts back that learn from rewards: noise in the multipliers, the learning rate, or the steps.

    python -m benchmarks.adapt_rates [--minutes 60] [--only-summary]

Everything is asked of validation texts, drawn by a seed that the adaptation benchmark does not report; no test text and
no unseen task is looked at.

- *Common share*: three experts of a task differ in their seed alone, so what their parameters p have in common was
  learnt, and the rest are steps that led nowhere: sum(p p') / sqrt(sum(p^2) sum(p'^2)), 0 for a walk without direction.
- *Sizes*: what an expert does at half its size (all z - 1 halved), and the mean of the three experts, in which what
  they do not have in common shrinks. Experts are those of benchmarks/adapt.py.
- *Trials*: SVF and LoRA at as many learning rates each, and for four times as many steps. The best of all looks counts,
  as in the benchmark, the untouched base among them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.adapt import WORK, correct, expert_folder, factored, home, opened, task_of
from benchmarks.adapt_plan import SEEDS, TASKS, Cell, method_of, settings_of
from umaf.evaluation.provenance import commit
from umaf.evaluation.record import new_record, write_record
from umaf.evaluation.summary import Figure, write_summary
from umaf.experts.attach import attached
from umaf.experts.bound import unbounded
from umaf.experts.expert import load_expert
from umaf.experts.policy import Policy, lora, svf
from umaf.experts.settings import TrainSettings
from umaf.experts.train import state_folder, train_policy
from umaf.files import write_json

HOME = Path(__file__).resolve().parents[1] / "comparison" / "adapt-rates"
SEED, LOOKED = 99, 200
Z = Mapping[str, Tensor]


@dataclass(frozen=True)
class Trial:
    """One training that is looked at on validation texts only."""

    method: str
    task: str
    steps: int
    rate: float

    @property
    def name(self) -> str:
        """File name of its result."""
        return f"{self.method}--{self.task.partition('/')[2]}--{self.steps}--{self.rate:g}"

    def settings(self) -> TrainSettings:
        """Give the benchmark's settings with this rate and so many steps; seven looks, however many."""
        known = settings_of(Cell(self.method, self.task, SEED)).model_dump()
        return TrainSettings(
            **{**known, "steps": self.steps, "rate": self.rate, "validate_every": self.steps // 6}
        )


RATES = {"svf_rl": (0.02, 0.01, 0.05), "lora_rl": (0.003, 0.001, 0.01)}
TRIALS = (
    Trial("svf_rl", "graded/kinds", 240, 0.02),
    Trial("lora_rl", "graded/kinds", 240, 0.003),
    *(
        Trial(method, task, 60, RATES[method][at])
        for task, at, method in itertools.product(("graded/kinds", "graded/lists"), range(3), RATES)
    ),
    Trial("svf_ntp", "graded/kinds", 420, 0.05),
    Trial("lora_ntp", "graded/kinds", 420, 0.003),
)


def tried(trial: Trial) -> dict[str, Any]:
    """Train once; gives the share of right validation answers at every look, and the CPU seconds."""
    settings, folder = trial.settings(), WORK / "rates" / home().name / "work" / trial.name
    began = time.process_time()
    if method_of(trial.method).trains == "svf":
        policy = svf(opened(), factored())
    else:
        policy = lora(opened(), rank=settings.rank, seed=SEED)
    resumed = state_folder(folder).exists()
    fitted = train_policy(policy, task_of(trial.task, SEED), settings=settings, folder=folder)
    looks = [entry["validation"] for entry in fitted.curve if "validation" in entry]
    cpu = None if resumed else round(time.process_time() - began, 1)
    return {**vars(trial), "looks": looks, "cpu": cpu}


def experts_of(task: str) -> list[Z]:
    """Read the experts of a task, one per seed."""
    return [load_expert(expert_folder(task, seed)).z for seed in SEEDS]


def common_share(experts: Sequence[Z]) -> float:
    """Give the mean cosine between the parameters of experts that differ in their seed.

    Example:
        >>> common_share([{"a": torch.tensor([1.5, 1.0])}, {"a": torch.tensor([1.2, 1.0])}])
        1.0
    """
    flat = [torch.cat([unbounded(z).flatten().double() for z in expert.values()]) for expert in experts]
    pairs = [torch.nn.functional.cosine_similarity(a, b, 0) for a, b in itertools.combinations(flat, 2)]
    return round(statistics.fmean(float(pair) for pair in pairs), 4)


def in_the_mean(experts: Sequence[Z], size: float = 1.0) -> dict[str, Tensor]:
    """Average experts, and take so much of what they change.

    Example:
        >>> in_the_mean([{"a": torch.tensor([1.5])}, {"a": torch.tensor([0.5])}])
        {'a': tensor([1.])}
    """
    return {name: 1 + size * (torch.stack([one[name] for one in experts]).mean(0) - 1) for name in experts[0]}


def sizes(task: str) -> dict[str, Any]:
    """Ask validation texts of the base, of each expert whole and halved, and of their mean."""
    known, settings, model = task_of(task, SEED), settings_of(Cell("svf_rl", task, SEED)), opened()
    experts = experts_of(task)
    ways = {"base": [in_the_mean(experts, 0.0)], "mean": [in_the_mean(experts)]}
    ways |= {"whole": experts, "half": [in_the_mean([one], 0.5) for one in experts]}
    found = {}
    for way, several in ways.items():
        rights = []
        for z in several:
            policy = Policy(
                model, z, lambda z=z: attached(model, factored(), z), lambda: attached(model, {}, {})
            )
            rights.append(correct(policy, known, known.validation[:LOOKED], settings))
        found[way] = np.mean(rights, 0).round(4).tolist()
    return {"task": task, "common": common_share(experts), "right": found}


def run(place: Path, *, minutes: float) -> None:
    """Measure what is missing; begin nothing new after so many minutes."""
    until = time.monotonic() + 60 * minutes
    work = [(f"sizes--{task.partition('/')[2]}", lambda task=task: sizes(task)) for task in TASKS]
    work += [(trial.name, lambda trial=trial: tried(trial)) for trial in TRIALS]
    for name, measure in work:
        path = place / f"{name}.json"
        if path.exists() or time.monotonic() > until:
            continue
        found, where = measure(), commit()
        write_json(path, {**found, "commit": where.model_dump() if where else None})
        print(name, found.get("looks") or found["common"], found.get("cpu"), flush=True)


def difference(cells: Sequence[dict], one: str, other: str) -> Figure:
    """Mean difference in right answers, every task the same weight; the interval draws texts within each task."""
    parts = [np.subtract(cell["right"][one], cell["right"][other]) for cell in cells]
    random = np.random.default_rng(0)
    draws = [np.mean([random.choice(part, len(part)).mean() for part in parts]) for _ in range(2000)]
    low, high = np.quantile(draws, [0.025, 0.975])
    value = float(np.mean([part.mean() for part in parts]))
    return Figure(round(value, 4), round(float(low), 4), round(float(high), 4), n=sum(map(len, parts)))


def walked(settings: TrainSettings) -> float:
    """Give how far a parameter comes, root mean square, if every step has the size of its rate and a random sign."""
    from umaf.experts.fit import rate_at

    return round(math.sqrt(sum(rate_at(step, settings) ** 2 for step in range(settings.steps))), 4)


def summarise(place: Path) -> None:
    """Write record and summary of what is measured so far."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(place.glob("*.json"))]
    trials = [cell for cell in found if "looks" in cell]
    measured = [cell for cell in found if "right" in cell]
    if not found:
        raise SystemExit("adapt_rates: nothing has been measured yet.")
    figures = {
        f"common_share.{cell['task'].partition('/')[2]}": Figure(cell["common"], n=len(SEEDS))
        for cell in measured
    }
    if len(measured) == len(TASKS):
        for name, pair in {
            "mean_over_one": ("mean", "whole"),
            "half_over_whole": ("half", "whole"),
            "one_over_base": ("whole", "base"),
            "mean_over_base": ("mean", "base"),
        }.items():
            figures[f"gain.{name}"] = difference(measured, *pair)
            for cell in measured:
                figures[f"gain.{name}.{cell['task'].partition('/')[2]}"] = difference([cell], *pair)
    for cell in trials:
        name = Trial(cell["method"], cell["task"], cell["steps"], cell["rate"]).name.replace("--", ".")
        gain = max(cell["looks"]) - cell["looks"][0]
        size = min(LOOKED, len(task_of(cell["task"], SEED).validation))
        figures[f"trial.{name}"] = Figure(round(gain, 4), n=size)
    for name, figure in figures.items():
        print(f"{name}: {figure.value} ({figure.low} to {figure.high}), n {figure.n}")
    config = {"seed": SEED, "looked": LOOKED, "rates": RATES, "trials": [vars(trial) for trial in TRIALS]}
    short = [
        {**cell, "right": {way: statistics.fmean(r) for way, r in cell["right"].items()}} for cell in measured
    ]
    walk = walked(settings_of(Cell("svf_rl", TASKS[0], SEED)))
    numbers = {
        "figures": {name: vars(figure) for name, figure in figures.items()},
        "walk_without_direction": walk,
        "sizes": short,
        "trials": trials,
    }
    HOME.mkdir(parents=True, exist_ok=True)
    record = new_record("adapt-rates", config=config, numbers=numbers)
    write_record(HOME / f"{datetime.now(timezone.utc):%Y-%m-%d-%H%M}.json", record)
    write_summary(HOME / "summary.json", figures)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, then write record and summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=480.0, help="begin nothing new after this long")
    parser.add_argument("--only-summary", action="store_true")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    place = WORK / "rates" / home().name
    if not asked.only_summary:
        run(place, minutes=asked.minutes)
    summarise(place)


if __name__ == "__main__":
    main()
