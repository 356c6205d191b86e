"""Where models come from, as far as a store can tell: the nearest base, and models that are nearly the same."""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch

from umaf.index.store import Store, both

# Cosine of fingerprints of one base from which two models count as the same change.
SAME = 0.995
ROWS = 4096


@dataclass(frozen=True)
class Hint:
    """The model of a store that another probably comes from.

    Attributes:
        model: name of the model.
        key: its key.
        base: name of the likely base.
        similarity: cosine of their fingerprints, both made without a base.
        why: "tokenizer and shape agree" or "tokenizer agrees".
    """

    model: str
    key: str
    base: str
    similarity: float
    why: str


@dataclass(frozen=True)
class Pair:
    """Two models that are nearly the same.

    Attributes:
        models: their names.
        keys: their keys.
        similarity: cosine of their fingerprints; 1 where their weights are identical.
        same_weights: whether the weights have one hash.
    """

    models: tuple[str, str]
    keys: tuple[str, str]
    similarity: float
    same_weights: bool


def near_duplicates(store: Store, *, threshold: float = SAME, where: str | None = None) -> list[Pair]:
    """Find pairs of models whose fingerprints nearly agree.

    Fingerprints of the same kind only are compared: changes of the same base, or models without one.

    Args:
        store: where.
        threshold: smallest cosine, in (0, 1].
        where: a condition on the card.

    Returns:
        Pairs, the nearest first; a group of n equal models gives n (n - 1) / 2.
    """
    names = ["key", "model", "base", "architecture", "identity", "difference"]
    known = {row["key"]: row for row in store.rows(both("has_fingerprint = true", where), columns=names)}
    keys, vectors = store.vectors(where)
    lengths = vectors.norm(dim=1, keepdim=True)
    unit = vectors / lengths.clamp_min(1e-12)
    found = []
    for start in range(0, len(keys), ROWS):
        table = unit[start : start + ROWS] @ unit[start:].T
        for i, j in torch.triu(table >= threshold, diagonal=1).nonzero().tolist():
            one, other = known[keys[start + i]], known[keys[start + j]]
            alike = ("base", "architecture", "difference")
            if all(one[name] == other[name] for name in alike):
                same = one["identity"] == other["identity"]
                found.append(_pair(one, other, float(table[i, j]), same))
    return sorted(found, key=lambda pair: (-pair.similarity, pair.models))


def likely_bases(store: Store, *, least: float = 0.5) -> list[Hint]:
    """For each model that was fingerprinted without a base, name the one in the store that it most resembles.

    Only models with the same tokenizer and architecture are asked; a smaller hint than `least` is none. A fingerprint
    of label words says what was learned, not what a model is, and gives none; a store of the extractor pca hints best.

    Returns:
        Hints, the surest first. Which of two is the base cannot be seen from fingerprints: a pair gives two hints.
    """
    names = ["key", "model", "architecture", "tokenizer", "layers", "width", "card"]
    condition = "has_fingerprint = true AND difference = false"
    rows = {row["key"]: row for row in store.rows(condition, columns=names)}
    keys, vectors = store.vectors("difference = false")
    wordless = [not json.loads(rows[key]["card"]).get("words") for key in keys]
    keys, vectors = [key for key, fits in zip(keys, wordless, strict=True) if fits], vectors[wordless]
    unit = vectors / vectors.norm(dim=1, keepdim=True).clamp_min(1e-12)
    groups: dict[tuple, list[int]] = {}
    for at, key in enumerate(keys):
        groups.setdefault((rows[key]["architecture"], rows[key]["tokenizer"]), []).append(at)
    found = []
    for members in groups.values():
        if len(members) < 2:
            continue
        table = unit[members] @ unit[members].T
        table.fill_diagonal_(-2)
        for at, (value, best) in enumerate(zip(*table.max(1), strict=True)):
            own, base = rows[keys[members[at]]], rows[keys[members[int(best)]]]
            if float(value) >= least:
                shaped = (own["layers"], own["width"]) == (base["layers"], base["width"])
                why = "tokenizer and shape agree" if shaped else "tokenizer agrees"
                found.append(Hint(own["model"], own["key"], base["model"], float(value), why))
    return sorted(found, key=lambda hint: (-hint.similarity, hint.model))


def _pair(one: dict, other: dict, similarity: float, same: bool) -> Pair:
    first, second = sorted((one, other), key=lambda row: (row["model"], row["key"]))
    return Pair((first["model"], second["model"]), (first["key"], second["key"]), similarity, same)
