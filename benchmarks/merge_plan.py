"""What the merge benchmark measures: bases, tasks, seeds, and how experts are trained."""

from __future__ import annotations

from dataclasses import dataclass

SEEDS = (0, 1, 2)
TASKS = (
    "snips7",
    "pros_cons",
    "mr_polarity",
    "clinc10_domain",
    "banking77",
    "goemotions_ekman7",
    "movie_reviews_long",
    "qnli",
)
TEST = 200
"""Test texts per task; the swept scale of task arithmetic is chosen on as many validation texts, where there are."""
LETTERS = 200
SCALES = tuple(step / 10 for step in range(1, 11))


@dataclass(frozen=True)
class Base:
    """A model that experts are fine-tuned from.

    Attributes:
        name: as the plan's other parts know it ("minilm" is the published all-MiniLM-L6-v2).
        steps: gradient steps per expert.
        rate: peak learning rate of AdamW, warmed up over a tenth of the steps and then lowered to 0.
        batch: texts per step.
    """

    name: str
    steps: int
    rate: float
    batch: int = 32


BASES = (Base("llama-1m", 200, 5e-4), Base("minilm", 100, 1e-4))
MULTITASK = 4
"""The model trained on all tasks at once gets this many times the steps of one expert."""
