"""Whom the index is measured on: experts of the zoo, and which capabilities its design may see."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

from benchmarks.plan import LETTERS
from benchmarks.transfer_plan import CAPABILITIES
from umaf.generation.train import Schedule
from umaf.tasks.door import load_task
from umaf.tasks.generated import KINDS
from umaf.tasks.task import Example, Task

SMALL = ("llama-1m", "bert-1m", "gpt2-1m", "t5-1m", "mixtral-1m")
LARGE = ("llama-5m", "gpt2-5m", "bert-5m")
# The design of fingerprints and searches was chosen on these, and on nothing else.
DESIGN = (
    *(f"made/{name}" for name in KINDS[:6]),
    "derived/clinc150/train-000",
    "derived/clinc150/train-001",
    "derived/banking77/train-002",
    "derived/banking77/train-003",
    "derived/clinc150/validation-002",
    "derived/banking77/validation-006",
)
# What is reported. The last eight are the held-out classifications of the bank that a transfer is measured on, too.
REAL = CAPABILITIES
HELDOUT = (*(f"made/{name}" for name in KINDS[6:]), *REAL)
TASKS = (*DESIGN, *HELDOUT)
# Of a task's texts: what it is searched by, and what only scores.
QUERIES, SCORED = 32, 96


@dataclass(frozen=True)
class Member:
    """One expert of the collection."""

    model: str
    task: str
    seed: int

    @property
    def name(self) -> str:
        """A file name."""
        return f"{self.model}--{self.task.replace('/', '-')}--{self.seed}"

    @property
    def folder(self) -> str:
        """Where `zoo.experts` puts it."""
        return f"zoo-{self.name}"

    @property
    def architecture(self) -> str:
        """The family, whatever the size."""
        return self.model.partition("-")[0]


def members() -> list[Member]:
    """List the collection in the order it is built: every stop leaves it as even as it can be."""
    made = [f"made/{name}" for name in KINDS]
    found = [Member(model, task, 0) for task in made for model in SMALL]
    found += [Member(model, task, 0) for task in DESIGN if task not in made for model in SMALL]
    found += [Member(model, task, 0) for task in REAL for model in SMALL]
    found += [Member(model, task, 0) for task in made for model in LARGE]
    found += [Member(model, task, 1) for task in (*REAL, *made) for model in SMALL]
    return found + [Member(model, task, 2) for task in (*REAL, *made) for model in SMALL]


def schedule(member: Member) -> Schedule | None:
    """Give a training short enough for hundreds of experts on one core; None for the recipe's own."""
    if member.task in REAL:
        return None
    if member.model in LARGE:
        return Schedule(steps=60, rate=1e-3, batch_size=16)
    return Schedule(steps=100, rate=2e-3 if member.model.startswith("bert") else 3e-3, batch_size=16)


@functools.cache
def task_of(name: str) -> Task:
    """Load a capability once, its texts as short as the benchmark of transfers has them."""
    whole = load_task(name)

    def cut(examples: tuple[Example, ...]) -> tuple[Example, ...]:
        return tuple(Example(e.text[:LETTERS].strip(), e.answer) for e in examples)

    return replace(whole, train=cut(whole.train), validation=cut(whole.validation), test=cut(whole.test))


def queries(task: str) -> tuple[Example, ...]:
    """Give the labelled texts that a task is searched by; no expert was trained on them."""
    return _apart(task)[:QUERIES]


def scored(task: str) -> tuple[Example, ...]:
    """Give the texts that a found model is judged by: neither trained on nor searched by."""
    return _apart(task)[QUERIES : QUERIES + SCORED]


@functools.cache
def _apart(task: str) -> tuple[Example, ...]:
    """Take texts of every label in turn, so that few of them still hold all; without the store's probes."""
    from umaf.index.space import default_probes

    known = task_of(task)
    trained = {example.text for example in known.train} | set(default_probes())
    texts = known.validation if len(known.validation) >= 4 * QUERIES else (*known.validation, *known.test)
    fresh = [example for example in texts if example.text not in trained]
    by_label = [[example for example in fresh if example.answer == label] for label in known.labels]
    rounds = max(map(len, by_label))
    return tuple(part[at] for at in range(rounds) for part in by_label if at < len(part))
