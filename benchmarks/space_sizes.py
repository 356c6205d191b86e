"""The Size Interpolator and the gate of the fusion, trained on fingerprints of the collection and judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations

import numpy as np
import torch
from torch import Tensor

from benchmarks.index_plan import Member
from umaf import seeds
from umaf.activations import ANCHORS_HASH, DEPTHS
from umaf.extraction import Fingerprint, FingerprintCard
from umaf.fusion.gated import Gate
from umaf.scaling import Film
from umaf.training.entries import EntryCard
from umaf.training.gate import GateSettings, train_gate
from umaf.training.interpolator import InterpolatorSettings, LeftOut, Pair, left_out, train_interpolator

FILM = InterpolatorSettings(steps=200, look_every=50, patience=3)
GATE = GateSettings(steps=150, look_every=50, patience=0)
SOURCES, DRAWS = 4, 400


def fingerprints(vectors: Tensor, cards: Sequence[EntryCard], version: str) -> list[Fingerprint]:
    """Give rows of a table cards, as `umaf.training.fingerprints` gives those of entries."""
    found = []
    for row, card in zip(vectors.double(), cards, strict=True):
        length = float(row.norm())
        about = FingerprintCard(
            model=f"{card.base} {card.capability} {card.seed}", base=card.base, architecture=card.architecture,
            parameters=card.parameters, layers=card.layers, width=card.width, tokenizer="", probes="", probe_count=0,
            truncated=0, anchors=ANCHORS_HASH, extractor=version, normalisation="centred", depths=DEPTHS,
            strength=length, unchanged=length == 0,
        )  # fmt: skip
        found.append(Fingerprint((row / length).float()[None], about))
    return found


def pairs_of(shown: Mapping[Member, Fingerprint]) -> list[Pair]:
    """Pair what experts of one family and capability show at two sizes, both ways."""
    groups: dict[tuple[str, str], list[Fingerprint]] = {}
    for member, one in shown.items():
        if member.seed == 0 and member.architecture in ("llama", "gpt2", "bert"):
            groups.setdefault((member.architecture, member.task), []).append(one)
    return [
        Pair(task, one, other) for (_, task), group in groups.items() for one, other in permutations(group, 2)
    ]


def interpolated(shown: Mapping[Member, Fingerprint]) -> LeftOut:
    """Compare the interpolator with identity and ridge, every capability left out once, sizes of one family."""
    return left_out(pairs_of(shown), settings=FILM)


def shipped(shown: Mapping[Member, Fingerprint], split: Mapping[Member, str]) -> Film:
    """Train the interpolator that ships: on train capabilities, watched on those for validation."""
    known, watched = (
        pairs_of({member: one for member, one in shown.items() if split[member] == name})
        for name in ("train", "validation")
    )
    return train_interpolator(known, watched, settings=FILM)[0]


def gated(shown: Mapping[Member, Fingerprint], split: Mapping[Member, str]) -> dict[str, list[float]]:
    """Ask for held-out capabilities among four sources: how much weight goes to the one that has it, by each way.

    What is wanted is shown by an expert of another architecture.
    """
    known, watched = (
        [(member.task, one) for member, one in shown.items() if split[member] == name]
        for name in ("train", "validation")
    )
    gate, _ = train_gate(known, watched, settings=GATE)
    first = next(iter(shown.values())).card.extractor
    ways = {"gate": gate, "cosine": Gate(first).eval()}
    held = [member for member in shown if split[member] == "heldout"]
    tasks = sorted({member.task for member in held})
    draw = np.random.default_rng(seeds.derive(0, "space", "gate"))
    made: dict[str, list[float]] = {name: [] for name in (*ways, "gate_first", "cosine_first", "equal")}
    for _ in range(DRAWS):
        chosen = [tasks[at] for at in draw.choice(len(tasks), size=SOURCES, replace=False)]
        sources = [
            held[int(draw.choice([at for at, m in enumerate(held) if m.task == task]))] for task in chosen
        ]
        # Some tasks only one architecture learned.
        others = [m for m in held if m.task == chosen[0] and m.architecture != sources[0].architecture]
        if not others:
            continue
        wanted = shown[others[int(draw.integers(len(others)))]].vector[0]
        rows = torch.cat([shown[one].vector for one in sources])
        for name, way in ways.items():
            with torch.no_grad():
                weights = way(wanted, rows, torch.full((SOURCES,), 1 / SOURCES))
            made[name].append(float(weights[0]))
            made[f"{name}_first"].append(float(weights.argmax() == 0))
        made["equal"].append(1 / SOURCES)
    return made
