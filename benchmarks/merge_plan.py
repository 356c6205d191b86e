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
"""Test texts per task."""
CHOOSING = 100
"""Validation texts per task that a scale is chosen on."""
LETTERS = 200
SCALES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5)
"""What a merged delta is multiplied by, where the scale is chosen."""
SCALED = (
    "ties",
    "pcb",
    "consensus_ta",
    "iso_c",
    "tsv_m",
    "wudi",
    "dare_linear",
    "breadcrumbs",
    "emr_unified",
    "sce",
    "knots",
    "della",
)
"""Methods that are measured with a chosen scale, too."""
ALONE = (0.125, 0.5)
"""Shares of one expert's delta that are put on the base without the others; an eighth is its share of a mean."""


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
