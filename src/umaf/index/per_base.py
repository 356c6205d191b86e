"""Search with what all experts of a base share taken off first.

Every fine-tuning of one base moves its fingerprint in a common direction, which says more about the base than about the
capability. The mean over the store's models of that base is that direction; without it models of different bases that
learned the same thing lie nearer to each other. It takes a few models of each base, and looks at every row.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from umaf.errors import StoreError
from umaf.extraction import Fingerprint
from umaf.index.entry import SHOWN
from umaf.index.store import Store

# A mean of fewer is mostly the model itself.
LEAST = 3


def nearest_per_base(
    store: Store, fingerprint: Fingerprint, *, where: str | None = None, limit: int = 10
) -> tuple[list[dict[str, Any]], float]:
    """Find the nearest changes, each seen from the middle of its base's.

    Args:
        store: where.
        fingerprint: a change since a base of which the store holds at least 3 models.
        where: a condition on the card; the middles are those of all models all the same.
        limit: how many.

    Returns:
        Rows with "similarity", best first, and the seconds it took.

    Raises:
        StoreError: the fingerprint has no base, or the store too few models of it.
    """
    began = time.perf_counter()
    condition = "has_fingerprint = true AND difference = true"
    bases = {row["key"]: row["base"] for row in store.rows(condition, columns=["key", "base"])}
    keys, vectors = store.vectors("difference = true")
    middles = _middles(vectors, [bases[key] for key in keys])
    base = fingerprint.card.base
    if base not in middles:
        raise StoreError(
            f"A search per base needs {LEAST} models of the base {base or '(none was given)'} in the store, to know "
            "what they share; add some, or leave --per-base out."
        )
    wanted = {row["key"]: row for row in store.rows(where, columns=list(SHOWN))} if where else None
    shown = wanted if wanted is not None else {row["key"]: row for row in store.rows(columns=list(SHOWN))}
    usable = [at for at, key in enumerate(keys) if bases[key] in middles and key in shown]
    if not usable:
        return [], time.perf_counter() - began
    rows = _unit(torch.stack([vectors[at] - middles[bases[keys[at]]] for at in usable]))
    alike = rows @ _unit(fingerprint.vector - middles[base])[0]
    best = alike.argsort(descending=True, stable=True)[:limit].tolist()
    found = [{**shown[keys[usable[at]]], "similarity": float(alike[at])} for at in best]
    return found, time.perf_counter() - began


def _middles(vectors: Tensor, bases: list[str | None]) -> dict[str | None, Tensor]:
    groups: dict[str | None, list[int]] = {}
    for at, base in enumerate(bases):
        groups.setdefault(base, []).append(at)
    return {base: vectors[at].mean(0) for base, at in groups.items() if len(at) >= LEAST}


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)
