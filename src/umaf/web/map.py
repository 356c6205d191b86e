"""The map: fingerprints in two directions, each point with what colours and shapes it."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from umaf.errors import StoreError
from umaf.index import Store, clusters
from umaf.index.entry import SHOWN
from umaf.index.store import both

MOST = 1500
"""Points that a browser still moves smoothly; of a larger store evenly spread ones are drawn."""
FRESH, OLD = 2.0, 20.0
"""Seconds after which a map is drawn again where entries came or went, and after which it is anyway."""
GROUPED = 400
"""Fingerprints up to which groups are looked for."""


@dataclass(frozen=True)
class Drawn:
    """A map as it is sent.

    Attributes:
        text: JSON.
        whole: fingerprints of its kind.
        other: fingerprints of the other kind.
        count: entries of the store when it was drawn.
        at: when, by `time.monotonic`.
        took: seconds.
    """

    text: bytes
    whole: int
    other: int
    count: int
    at: float
    took: float


class Map:
    """Draws a store's map, and keeps it while it is fresh.

    Args:
        store: whose.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._kept: dict[bool, Drawn] = {}

    def drawn(self, *, difference: bool) -> Drawn:
        """Place the fingerprints.

        Args:
            difference: of what was learned since a base, rather than of what a model is; the two kinds hold numbers
                that cannot be compared.

        Returns:
            As JSON: points (key, model, x, y, architecture, base, task, group), shares of the variance, and counts.
        """
        kept = self._kept.get(difference)
        if kept is not None and not self._old(kept):
            return kept
        # While one draws, the others are given the map before.
        if not self._lock.acquire(blocking=kept is None):
            return kept or self.drawn(difference=difference)
        try:
            kept = self._kept.get(difference)
            if kept is None or self._old(kept):
                kept = self._draw(difference)
                self._kept[difference] = kept
            return kept
        finally:
            self._lock.release()

    def _old(self, kept: Drawn) -> bool:
        age = time.monotonic() - kept.at
        return age > OLD or (age > FRESH + 10 * kept.took and kept.count != self._store.outline().count)

    def _draw(self, difference: bool) -> Drawn:
        began, count = time.monotonic(), self._store.outline().count
        found = self._points(difference)
        text = json.dumps(found, allow_nan=False).encode()
        return Drawn(text, found["whole"], found["other"], count, began, time.monotonic() - began)

    def _points(self, difference: bool) -> dict[str, Any]:
        where = f"difference = {'true' if difference else 'false'}"
        other = f"difference = {'false' if difference else 'true'} AND has_fingerprint = true"
        keys, vectors = self._store.vectors(where)
        whole = len(keys)
        order = sorted(range(whole), key=lambda at: keys[at])
        if whole > MOST:
            order = [order[at] for at in np.linspace(0, whole - 1, MOST).astype(int)]
        rows = {
            row["key"]: row
            for row in self._store.rows(both(where, "has_fingerprint = true"), columns=[*SHOWN])
        }
        order = [at for at in order if keys[at] in rows]
        table = vectors[order].double().numpy()
        places, shares = _principal(table)
        groups = _groups(vectors[order])
        points = [
            _point(rows[keys[at]], places[row], groups[row] if groups else None)
            for row, at in enumerate(order)
        ]
        return {
            "points": points,
            "shares": [float(one) for one in shares],
            "whole": whole,
            "other": len(self._store.rows(other, columns=["key"])),
            "difference": difference,
        }


def _point(row: dict[str, Any], place: np.ndarray, group: int | None) -> dict[str, Any]:
    scores: dict[str, float] = json.loads(row["scores"] or "{}")
    best = max(scores, key=lambda name: (scores[name], name)) if scores else None
    own = {name: row[name] for name in ("key", "model", "architecture", "base", "licence", "parameters")}
    return {**own, "x": float(place[0]), "y": float(place[1]), "task": best, "group": group}


def _principal(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(table) < 2:
        return np.zeros((len(table), 2)), np.zeros(2)
    from umaf.reports.figures import principal

    return principal(table)


def _groups(vectors: Any) -> tuple[int, ...] | None:
    """Find groups where there are few enough to do so while somebody waits."""
    if not 3 <= len(vectors) <= GROUPED:
        return None
    try:
        return clusters(vectors, most=8).labels
    except StoreError:
        return None
