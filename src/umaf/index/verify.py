"""Check a store, and write what it holds to files."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from umaf.errors import StoreError
from umaf.extraction.store import write_tensors
from umaf.files import whole_folder, write_text
from umaf.index.entry import entry_of, schema
from umaf.index.store import Store


@dataclass(frozen=True)
class Verified:
    """What a check found.

    Attributes:
        entries: how many there are.
        faults: one sentence for each fault; empty for a sound store.
    """

    entries: int
    faults: tuple[str, ...]


def verify(store: Store) -> Verified:
    """Read every entry, and check that it is whole and belongs where it is.

    Keys must be there once, vectors finite and of length 1 or 0, cards readable and of the store's space.
    """
    names = [field.name for field in schema()]
    rows = store.rows(columns=names)
    faults = [
        f"The key {key} ({count} times) should be there once; remove it and add the model again."
        for key, count in Counter(row["key"] for row in rows).items()
        if count > 1
    ]
    for row in rows:
        faults += [f"{row['model']} ({row['key']}): {fault}" for fault in _faults(row, store)]
    return Verified(len(rows), tuple(faults))


def export(store: Store, path: str | Path, *, where: str | None = None) -> int:
    """Write entries to a file or a folder that does not exist.

    Args:
        store: where from.
        path: a .jsonl file (one entry per line with its vector), a .safetensors file (the matrix of fingerprints, with
            the cards as metadata), or a folder (one fingerprint file per model, as `umaf fingerprint` writes them).
        where: a condition on the card.

    Returns:
        How many entries were written.

    Raises:
        OutputError: something is in the way.
        StoreError: nothing to write.
    """
    entries = store.entries(where)
    target = Path(path)
    if not entries:
        raise StoreError(
            f"There is nothing in the store {store.place} to write to {path}; widen the condition."
        )
    if target.suffix == ".jsonl":
        lines = []
        for one in entries:
            numbers = None if one.vector is None else one.vector.tolist()
            about = {"key": one.key, "model": one.model, "place": one.place, "licence": one.licence}
            card = None if one.card is None else vars(one.card)
            lines.append(
                json.dumps({**about, "scores": dict(one.scores), "card": card, "fingerprint": numbers})
            )
        if target.exists():
            from umaf.files import refuse_existing

            refuse_existing(target)
        write_text(target, "\n".join(lines) + "\n")
        return len(lines)
    made = [(one, one.fingerprint()) for one in entries]
    having = [(one, found) for one, found in made if found is not None]
    if not having:
        raise StoreError(
            f"No entry that was asked for has a fingerprint; write a .jsonl file instead of {path}."
        )
    if target.suffix == ".safetensors":
        rows = torch.cat([found.vector for _, found in having])
        cards = [{"key": one.key, **vars(found.card)} for one, found in having]
        write_tensors(target, {"fingerprints": rows}, {"umaf": "fingerprints", "cards": json.dumps(cards)})
        return len(having)
    with whole_folder(target) as draft:
        for one, found in having:
            safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in one.model).strip(".-") or "model"
            found.save(draft / f"{safe}--{one.key[:8]}.safetensors")
    return len(having)


def _faults(row: dict, store: Store) -> list[str]:
    try:
        one = entry_of(row)
    except (ValueError, TypeError, KeyError):
        return ["its card cannot be read; remove it and add the model again."]
    found = []
    for what, vector in (("fingerprint", one.vector), ("answers", one.answers)):
        if vector is None:
            continue
        length = float(vector.norm())
        if not torch.isfinite(vector).all() or not (length == 0 or abs(length - 1) < 1e-3):
            found.append(
                f"its {what} has length {length:.3f} instead of 1; remove it and add the model again."
            )
    if one.vector is None and one.answers is None:
        found.append("it has neither a fingerprint nor answers; remove it.")
    if one.card is not None:
        for name in ("extractor", "probes", "anchors", "normalisation"):
            if getattr(one.card, name) != getattr(store.space, name):
                found.append(
                    f"it was made with other {name} than the store's; remove it and add the model again."
                )
    return found
