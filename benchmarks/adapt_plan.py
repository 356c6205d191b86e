"""What the adaptation benchmark trains: tasks, seeds, methods, and how long each learns."""

from __future__ import annotations

from dataclasses import dataclass

from umaf.experts.settings import TrainSettings
from umaf.tasks.graded import part_of_plan

SEEDS = (0, 1, 2)
TASKS = tuple(part_of_plan("train"))
UNSEEN = tuple(part_of_plan("unseen"))
TEST = 240
"""Test texts per task and seed; a seed draws its own."""
LONGEST = {"numeric": 5, "exact": 7, "label": 7, "code": 14}
"""Tokens an answer may have, by reward."""
STEPS = 60


@dataclass(frozen=True)
class Method:
    """One way to learn a task.

    Attributes:
        name: in tables and file names.
        trains: "svf", "lora" or "ia3".
        objective: "reinforce" or "next_token".
        rate: learning rate of Adam, from brief runs by rewards on the validation split of seed 99: SVF at 0.015 and
            0.05 (stories), 0.02 (lists, choices), 0.03 and 0.1 (kinds); LoRA at 0.001, 0.003 and 0.01 (kinds) and
            0.002 (stories). Next-token training shares the rates; IA3's was not looked for.
    """

    name: str
    trains: str
    objective: str
    rate: float


METHODS = (
    Method("svf_rl", "svf", "reinforce", 0.02),
    Method("lora_rl", "lora", "reinforce", 0.003),
    Method("svf_ntp", "svf", "next_token", 0.02),
    Method("lora_ntp", "lora", "next_token", 0.003),
    Method("ia3_ntp", "ia3", "next_token", 0.02),
)


@dataclass(frozen=True)
class Cell:
    """One training: a method on a task by a seed."""

    method: str
    task: str
    seed: int

    @property
    def name(self) -> str:
        """File name of its result."""
        return f"{self.method}--{self.task.partition('/')[2]}--{self.seed}"


def cells() -> list[Cell]:
    """List the work, method by method: the experts first, which other parts of the benchmark use."""
    return [Cell(method.name, task, seed) for method in METHODS for seed in SEEDS for task in TASKS]


def method_of(name: str) -> Method:
    """Find a method by name."""
    return next(method for method in METHODS if method.name == name)


def settings_of(cell: Cell) -> TrainSettings:
    """Give the settings of a cell's training; both objectives take as many steps of as many prompts."""
    method, reward = method_of(cell.method), part_of_plan("train")[cell.task]
    return TrainSettings(
        objective=method.objective,  # pyright: ignore[reportArgumentType]
        steps=STEPS,
        rate=method.rate,
        max_new_tokens=LONGEST[reward],
        validation=200,
        kl=0.0,
        validate_every=10,
        patience=0,
        keep_every=10,
        run_code=reward == "code",
        bfloat16=True,
        seed=cell.seed,
    )
