"""What the fingerprints of the benchmark's experts say by themselves: retrieval, clusters, train capabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import silhouette_samples
from torch import Tensor

from benchmarks.making import LABELS, RANK, bare, probes, source, task
from benchmarks.plan import where
from benchmarks.transfer_cells import generator, told
from benchmarks.transfer_plan import CAPABILITIES, PAIRS, PROBES, SEEDS, TEST
from benchmarks.transfer_rivals import material, taught
from umaf.adapters import attach
from umaf.evaluation.statistics import recovery
from umaf.extraction import Answers, Fingerprint, bind, load_bound, prototypes
from umaf.generation.forward import forward
from umaf.generation.replies import read_labels
from umaf.generation.sources import Source
from umaf.generation.train import train_lora
from umaf.readout import label_scores
from umaf.training.lesson import view

TRAIN = 8
"""Train capabilities that are asked for again."""


def fingerprints(cache: Path) -> list[dict]:
    """Fingerprint every expert that the cells left behind: name, architecture, and vectors with words and without."""
    found = []
    for model in dict.fromkeys(model for model, _ in PAIRS):
        for name in CAPABILITIES:
            for seed in SEEDS:
                folder = f"{Path(where(model)).name.replace(':', '-')}--{name.replace('/', '-')}--{seed}"
                if (cache / "experts" / model / folder).exists():
                    found.append(_fingerprint(model, name, seed, cache))
    return found


def retrieval(rows: Sequence[dict], vectors: str) -> list[dict]:
    """Look for every expert among those of the other architectures: is the nearest one of its capability?"""
    table = torch.stack([row[vectors] for row in rows])
    found = []
    for at, row in enumerate(rows):
        others = [i for i, other in enumerate(rows) if other["model"] != row["model"]]
        if row["capability"] not in {rows[i]["capability"] for i in others}:
            continue
        order = (table[others] @ table[at]).argsort(descending=True)
        names = [rows[others[i]]["capability"] for i in order.tolist()]
        found.append(
            {
                "capability": row["capability"],
                "top1": float(names[0] == row["capability"]),
                "top5": float(row["capability"] in names[:5]),
            }
        )
    return found


def silhouettes(rows: Sequence[dict], vectors: str, by: str) -> list[tuple[str, float]]:
    """Give each expert's silhouette by "capability" or by "model", with the capability it counts for."""
    table = np.stack([row[vectors].numpy() for row in rows])
    names = [row[by] for row in rows]
    if not 2 <= len(set(names)) < len(names):
        return []
    each = silhouette_samples(table, names, metric="cosine")
    return [(row["capability"], float(value)) for row, value in zip(rows, each, strict=True)]


def train_capabilities(target: str, cache: Path) -> list[tuple[str, float]]:
    """Generate train capabilities again, from their true answers: recoveries against a LoRA on the same labels."""
    own, whole, model = generator(target, cache / "generators"), material(cache), bare(target)
    some = [one for one in whole.of("train") if 2 <= len(one.labels) <= 7 and len(one.rows) > 2 * TEST]
    order = np.random.default_rng(0).permutation(len(some))[:TRAIN]
    found = []
    for at in order:
        one = some[at]
        asked = slice(0, TEST)
        words = Answers(one.cue, one.labels, torch.zeros(1, len(one.labels))).words
        parts = view(whole, one, torch.arange(TEST, len(one.rows)))
        vector = bind(dict(zip(words, parts, strict=True)))
        goal = taught(whole, one, model, rows=slice(TEST, None))
        like = _like(cache)
        made = forward(
            model, [goal], rank=RANK, generator=own, fingerprint=like.with_vector(vector / vector.norm())
        ).factors
        best = train_lora(model, [goal], rank=RANK, schedule=LABELS, seed=0)
        texts = [whole.texts[row] for row in one.rows[asked].tolist()]
        scores = [
            float(
                (
                    label_scores(each, texts, one.labels, one.cue, truncate=True).argmax(1)
                    == one.answers[asked]
                )
                .float()
                .mean()
            )
            for each in (attach(model, made), model, attach(model, best))
        ]
        gained = recovery(*scores)
        if gained is not None:
            found.append((one.name, gained))
    return found


def _fingerprint(model: str, name: str, seed: int, cache: Path) -> dict:
    known, texts = task(name), tuple(probes(name, seed)[:PROBES])
    expert = source(model, name, seed, cache)
    scores = read_labels(Source(expert, texts, known.cue, known.labels), truncate=True)
    parts = prototypes(load_bound().space.places(texts), scores)
    words = Answers(known.cue, known.labels, scores).words
    return {
        "model": model,
        "capability": name,
        "seed": seed,
        "words": _bound(parts, words),
        "wordless": _bound(parts, tuple(f"label {at}" for at in range(len(words)))),
    }


def _bound(parts: Tensor, words: Sequence[str]) -> Tensor:
    vector = bind(dict(zip(words, parts, strict=True)))
    return (vector / vector.norm().clamp_min(1e-12)).float()


def _like(cache: Path) -> Fingerprint:
    """Give any fingerprint of the bound extractor, whose card says how the others were made."""
    source_model, target = PAIRS[0]
    return told(source_model, target, CAPABILITIES[0], SEEDS[0], cache).fingerprint
