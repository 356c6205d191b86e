"""What the transfer benchmark measures: pairs of models, held-out capabilities, seeds, sizes."""

from __future__ import annotations

from benchmarks.plan import Cell

SEEDS = (0, 1, 2)
PROBES = 384
"""Unlabeled texts per capability; fewer where the capability has fewer training texts."""
TEST = 150
PAIRS = (
    ("bert-1m", "llama-1m"), ("llama-1m", "gpt2-1m"), ("gpt2-1m", "bert-1m"), ("minilm", "llama-1m"),
    ("bert-1m", "t5-1m"), ("gpt2-1m", "mixtral-1m"), ("t5-1m", "llama-1m"), ("mixtral-1m", "gpt2-1m"),
    ("llama-1m", "minilm"), ("gpt2-1m", "llama-1m"), ("llama-1m", "bert-1m"), ("bert-1m", "gpt2-1m"),
    ("mixtral-1m", "llama-1m"),
)  # fmt: skip
CAPABILITIES = (
    "snips7",
    "pros_cons",
    "mr_polarity",
    "clinc150/domains",
    "clinc150/requests",
    "banking77/matters",
    "sentlabel_imdb",
    "sentlabel_amazon_cells",
)
FUSED = (
    ("snips7", "mr_polarity"),
    ("pros_cons", "clinc150/requests", "banking77/matters"),
    ("snips7", "pros_cons", "clinc150/requests", "mr_polarity"),
)
FUSED_PAIR = ("bert-1m", "llama-1m")
FUSED_RANK = 32
"""Several capabilities need as many ranks in the last writers as they have labels in all."""
SOLVED = 2
"""Pairs, from the first, whose extras are `solve` and `distill`; first light measures them on more."""
REFINE = 50


def groups() -> list[list[Cell]]:
    """List the work, a pair of models with one seed at a time; seeds take turns, so that an early end spans them."""
    found = []
    for turn in range(len(SEEDS)):
        for place, (source, target) in enumerate(PAIRS):
            seed = SEEDS[(place + turn) % len(SEEDS)]
            cells = [
                Cell("single", source, target, name, seed, place < SOLVED and turn == 0)
                for name in CAPABILITIES
            ]
            if (source, target) == FUSED_PAIR:
                cells += [Cell("fused", source, target, "+".join(names), seed) for names in FUSED]
            found.append(cells)
    return found
