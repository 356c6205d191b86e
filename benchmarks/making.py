"""What cells share and keep: tasks, experts on the source side, and oracle LoRAs on the target side."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.plan import LETTERS, PROBES, where
from umaf import seeds
from umaf.adapters import Factors
from umaf.errors import OutputError
from umaf.files import write_json
from umaf.generation.generate import shorten
from umaf.generation.goals import Goal, labelled_goal
from umaf.generation.train import Schedule, train_lora
from umaf.models import Model, open_model
from umaf.tasks.door import load_task
from umaf.tasks.task import Example, Task
from zoo.experts import expert

RANK = 8
# All-MiniLM-L6-v2 has twenty times the parameters of the others and learns these tasks in fewer steps.
LABELS, LARGE = Schedule(steps=300), Schedule(steps=120, rate=1e-3)


@dataclass(frozen=True)
class Timed:
    """Something made, with what it cost, and in which run; seconds of two runs do not compare."""

    value: Factors
    cpu: float
    wall: float
    run: str = ""


def timed(make, *given, **options) -> Timed:
    """Make factors and take the time; CPU seconds of this process, which neighbours do not change much."""
    cpu, wall = time.process_time(), time.perf_counter()
    value = make(*given, **options)
    return Timed(getattr(value, "factors", value), time.process_time() - cpu, time.perf_counter() - wall)


@functools.cache
def bare(name: str) -> Model:
    """Open a model of the plan once."""
    return open_model(where(name))


@functools.cache
def task(name: str) -> Task:
    """Load a task, its texts cut to a length that every window holds."""

    def cut(examples: tuple[Example, ...]) -> tuple[Example, ...]:
        return tuple(Example(e.text[:LETTERS].strip(), e.answer) for e in examples)

    whole = load_task(name)
    return dataclasses.replace(
        whole, train=cut(whole.train), validation=cut(whole.validation), test=cut(whole.test)
    )


def probes(name: str, seed: int) -> list[str]:
    """Draw the unlabeled probes of a capability from its training texts."""
    texts = list(dict.fromkeys(e.text for e in task(name).train))
    order = np.random.default_rng(seeds.derive(seed, "first-light", "probes", name)).permutation(len(texts))
    return [texts[i] for i in order[:PROBES]]


def labelled(name: str, target: Model) -> Goal:
    """The goal of all training texts with their true labels, cut to the target's window."""
    known = task(name)
    answers = [e.answer for e in known.train]
    return shorten(target, labelled_goal([e.text for e in known.train], known.cue, known.labels, answers))[0]


@functools.cache
def source(model: str, capability: str, seed: int, cache: Path) -> Model:
    """Fine-tune the expert that has a capability, or open it where it was made before."""
    given = where(model), task(capability), cache / "experts" / model
    try:
        return open_model(expert(*given, seed=seed))
    except OutputError:
        # Another worker was quicker.
        return open_model(expert(*given, seed=seed))


def schedule(target: str) -> Schedule:
    """How long the oracle trains; `distill` gets half the steps."""
    return LARGE if target == "minilm" else LABELS


def oracle(target: str, capability: str, seed: int, cache: Path, run: str) -> Timed:
    """Fine-tune a LoRA on all true labels of a capability: what recoveries are measured against."""
    file = cache / "oracles" / f"{target}--{capability.replace('/', '-')}--{seed}.pt"
    costs = file.with_suffix(".json")
    if costs.exists():
        return Timed(torch.load(file, weights_only=True), **json.loads(costs.read_text()))
    goal = labelled(capability, bare(target))
    made = timed(train_lora, bare(target), [goal], rank=RANK, schedule=schedule(target), seed=seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(made.value), file)
    write_json(costs, {"cpu": made.cpu, "wall": made.wall, "run": run})
    return dataclasses.replace(made, run=run)
