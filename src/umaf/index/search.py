"""Search a store by a model or a fingerprint; `umaf.index.task` searches by task."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from umaf.errors import StoreError
from umaf.extraction import DISTANCES, SIMILARITIES, Fingerprint
from umaf.extraction.similarity import Similarity
from umaf.index.build import Opening, identify, read_model
from umaf.index.collect import Candidate
from umaf.index.entry import Entry
from umaf.index.per_base import nearest_per_base
from umaf.index.space import check_space
from umaf.index.store import EXACT, Store, both, quoted
from umaf.models.locate import locate

# Other metrics than the cosine are computed on this many nearest by cosine where a store is large.
SHORTLIST = 1000


@dataclass(frozen=True)
class Hit:
    """One model that was found.

    Attributes:
        rank: 1 for the best.
        similarity: of the metric that was asked for.
        key: in the store.
        model: its name.
        base: of the model, or None.
        architecture: family; None for a model known by its outputs.
        parameters: number, or None.
        licence: or None.
        scores: measured scores by task.
        tried: what it achieved when it was run on the query's texts (`umaf.index.trial`); None where it was not.
    """

    rank: int
    similarity: float
    key: str
    model: str
    base: str | None
    architecture: str | None
    parameters: int | None
    licence: str | None
    scores: dict[str, float] = field(default_factory=dict)
    tried: float | None = None


@dataclass(frozen=True)
class Found:
    """The answer to a search.

    Attributes:
        hits: best first.
        by: what was compared, such as "fingerprint" or "answers".
        metric: how.
        searched: entries in the store.
        exact: whether every entry was looked at.
        recall: share of the true ten nearest that searches of this store find, as measured; 1 where exact.
        seconds: how long the store took.
    """

    hits: tuple[Hit, ...]
    by: str
    metric: str
    searched: int
    exact: bool
    recall: float | None
    seconds: float


@dataclass(frozen=True)
class Asked:
    """How a search is narrowed.

    Attributes:
        where: a condition on the card.
        limit: how many hits.
        metric: a registered similarity; only "cosine" for searches by answers.
        without: keys that are left out.
        per_base: take off what all models of a base share; see `umaf.index.per_base`.
    """

    where: str | None = None
    limit: int = 10
    metric: str = "cosine"
    without: tuple[str, ...] = ()
    per_base: bool = False


def by_fingerprint(store: Store, fingerprint: Fingerprint, asked: Asked | None = None) -> Found:
    """Find the models whose fingerprints are most like one.

    Raises:
        StoreError: it was made with another extractor or other probes than the store's, or the condition is unclear.
        RegistryError: no such metric.
    """
    check_space(fingerprint.card, store.space)
    how = asked or Asked()
    where = both(_of_kind(store, fingerprint), narrowed(how))
    vector = fingerprint.vector.flatten()
    if how.per_base:
        rows, seconds = nearest_per_base(store, fingerprint, where=where, limit=how.limit)
        return Found(
            hits_of(rows), "fingerprint per base", "cosine", store.outline().count, True, 1.0, seconds
        )
    if how.metric == "cosine":
        return nearest(store, vector, "fingerprint", where, how)
    return _by_metric(store, fingerprint, where, how)


def by_model(
    store: Store,
    name: str,
    *,
    base: str | None = None,
    asked: Asked | None = None,
    opening: Opening | None = None,
) -> Found:
    """Find the models most like one, which is left out itself.

    Args:
        store: where.
        name: a model of the store by its name or key, or anything `open_model` opens.
        base: the base of a model that is not in the store.
        asked: how the search is narrowed.
        opening: how a model that is not in the store is opened.

    Raises:
        StoreError: several models of that name.
        ModelError: no such model.
    """
    how = asked or Asked()
    entry = stored(store, name)
    if entry is None:
        entry = read_model(Candidate(locate(name), base, name), store.space, opening)
    how = replace(how, without=(*how.without, entry.key))
    found = entry.fingerprint()
    if found is not None:
        return by_fingerprint(store, found, how)
    if entry.answers is None:
        raise StoreError(
            f"{name} has neither a fingerprint nor answers in the store; remove it and add it again."
        )
    return nearest(store, entry.answers, "answers", narrowed(how), how)


def stored(store: Store, name: str) -> Entry | None:
    """Find an entry by its name, key or the weights at a place; None where there is none.

    Raises:
        StoreError: several models have that name.
    """
    found = store.entries(
        f"model = {quoted(name)} OR key = {quoted(name)} OR place = {quoted(name)}", limit=3
    )
    if not found and Path(name).expanduser().is_dir():
        found = store.entries(f"identity = {quoted(identify(name))}", limit=3)
    if len(found) > 1:
        keys = ", ".join(one.key for one in found)
        raise StoreError(f"Several models of the store answer to {name}; name one by its key: {keys}.")
    return found[0] if found else None


def measure_recall(store: Store, *, queries: int = 20, nearest: int = 10) -> float:
    """Measure which share of the true nearest entries the store's index of cells finds, and note it.

    Queries are entries of the store, evenly spread, each a little aside from where it lies.
    """
    keys = sorted(store.keys())
    step = max(1, len(keys) // queries)
    chosen = [
        entry for key in keys[::step][:queries] for entry in store.entries(f"key = {quoted(key)}", limit=1)
    ]
    stream = torch.Generator().manual_seed(0)
    shares = []
    for entry in chosen:
        if entry.vector is None:
            continue
        vector = entry.vector + 0.01 * torch.randn(entry.vector.shape, generator=stream)
        near, true = (
            {row["key"] for row in store.nearest(vector, limit=nearest, exact=exact)}
            for exact in (False, True)
        )
        shares.append(len(near & true) / max(1, len(true)))
    recall = sum(shares) / max(1, len(shares))
    store.note("recall", json.dumps({"recall": recall, "queries": len(shares), "nearest": nearest}))
    return recall


def arrange(store: Store, *, smallest: int = EXACT) -> float | None:
    """Give a large store its index of cells, and measure the recall; does nothing below the smallest size.

    Returns:
        The recall, or None where the store is searched exactly.
    """
    if len(store) < smallest:
        return None
    # Cells of about two thousand rows: fewer are slow to search, more are slow to make.
    store.divide(max(16, min(1024, len(store) // 2000)))
    return measure_recall(store)


def _of_kind(store: Store, fingerprint: Fingerprint) -> str | None:
    """Say which entries a fingerprint compares with; None for all of them.

    What was learned since a base and what a model is are no comparable numbers. What label words mean is told in the
    same way with a base and without one.
    """
    change = fingerprint.card.base is not None
    if fingerprint.card.words or store.outline().kinds == {change}:
        return None
    return f"difference = {'true' if change else 'false'}"


def narrowed(how: Asked) -> str | None:
    """Write how a search is narrowed as one condition."""
    left_out = f"key NOT IN ({', '.join(map(quoted, how.without))})" if how.without else None
    return both(how.where, left_out)


def nearest(store: Store, vector: Tensor, column: str, where: str | None, how: Asked) -> Found:
    """Find the entries whose vectors in a column are nearest to one, through cells where there are some."""
    began = time.perf_counter()
    through = column == "fingerprint" and store.approximate(column)
    rows = store.nearest(vector, column=column, where=where, limit=how.limit, exact=not through)
    seconds = time.perf_counter() - began
    outline = store.outline()
    recall = outline.recall if through else 1.0
    return Found(hits_of(rows), column, "cosine", outline.count, not through, recall, seconds)


def _by_metric(store: Store, fingerprint: Fingerprint, where: str | None, how: Asked) -> Found:
    compare = cast(Similarity, SIMILARITIES.get(how.metric))
    began = time.perf_counter()
    large = len(store) >= EXACT
    if large:
        near = store.nearest(fingerprint.vector, where=where, limit=SHORTLIST)
        listed = ", ".join(quoted(row["key"]) for row in near)
        where = f"key IN ({listed})" if near else "false"
    rows = []
    for entry in store.entries(both("has_fingerprint = true", where)):
        own = entry.fingerprint()
        if own is not None:
            rows.append({**_shown(entry), "similarity": compare(fingerprint, own)})
    best_first = sorted(rows, key=lambda row: row["similarity"], reverse=how.metric not in DISTANCES)
    seconds = time.perf_counter() - began
    return Found(
        hits_of(best_first[: how.limit]),
        "fingerprint",
        how.metric,
        len(store),
        not large,
        None if large else 1.0,
        seconds,
    )


def _shown(entry: Entry) -> dict[str, Any]:
    card = entry.card
    return {
        "key": entry.key,
        "model": entry.model,
        "base": card.base if card else None,
        "architecture": card.architecture if card else None,
        "parameters": card.parameters if card else None,
        "licence": entry.licence,
        "scores": json.dumps(dict(entry.scores)),
    }


def hits_of(rows: Sequence[dict[str, Any]]) -> tuple[Hit, ...]:
    """Number rows of the table, best first, as hits."""
    names = ("key", "model", "base", "architecture", "parameters", "licence")
    return tuple(
        Hit(
            rank=rank,
            similarity=float(row["similarity"]),
            **{name: row[name] for name in names},
            scores=json.loads(row["scores"] or "{}"),
        )
        for rank, row in enumerate(rows, start=1)
    )
