"""A row of the store: one model, what is known of it, and its fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from umaf.extraction import Fingerprint, FingerprintCard
from umaf.extraction.fingerprint import WIDTH, card_from
from umaf.index.answers import SKETCH

if TYPE_CHECKING:
    import pyarrow

# What a filter can name, beside the vectors.
TEXT = (
    "key",
    "model",
    "place",
    "base",
    "architecture",
    "tokenizer",
    "licence",
    "about",
    "identity",
    "scores",
    "card",
)
WHOLE = ("parameters", "layers", "width")
FLAGS = ("difference", "has_fingerprint", "has_answers")
SHOWN = (
    "key",
    "model",
    "place",
    "base",
    "architecture",
    "parameters",
    "layers",
    "width",
    "licence",
    "scores",
)
# Each column that is fetched costs a read for every hit, so what the card says is read from it.
FETCHED = ("key", "model", "place", "licence", "scores", "card")


@dataclass(frozen=True)
class Entry:
    """A model in the store.

    Attributes:
        key: identity of model, base, extractor and probes; one row for each.
        model: its name.
        place: what `open_model` opens; None for a model known by its outputs alone.
        identity: hash of its weights, or of its outputs.
        card: where the fingerprint comes from; None for a model known by its outputs alone.
        vector: `[512]` float32, or None.
        answers: `[1024]` float32, what it answers to the probes (`umaf.index.answers`), or None.
        licence: as its model card names it.
        about: first words of its model card.
        scores: measured scores by task.
    """

    key: str
    model: str
    place: str | None
    identity: str
    card: FingerprintCard | None
    vector: Tensor | None
    answers: Tensor | None
    licence: str | None = None
    about: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)

    def fingerprint(self) -> Fingerprint | None:
        """Give the fingerprint as every other part of umaf takes it."""
        if self.card is None or self.vector is None:
            return None
        return Fingerprint(self.vector.reshape(1, WIDTH).float(), self.card)


def key_of(*parts: str | None) -> str:
    """Hash what identifies a row: weights, base, extractor, probes.

    Example:
        >>> key_of("a", None) == key_of("a", "")
        False
    """
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def schema() -> pyarrow.Schema:
    """Give the table's columns."""
    import pyarrow as pa

    columns = [pa.field(name, pa.string(), nullable=name != "key") for name in TEXT]
    columns += [pa.field(name, pa.int64()) for name in WHOLE] + [pa.field(name, pa.bool_()) for name in FLAGS]
    columns.append(pa.field("fingerprint", pa.list_(pa.float32(), WIDTH)))
    columns.append(pa.field("answers", pa.list_(pa.float32(), SKETCH)))
    return pa.schema(columns)


def row_of(entry: Entry) -> dict[str, Any]:
    """Lay an entry out in the table's columns; a vector that is not there is 0, and a flag says so."""
    card = entry.card
    vector = torch.zeros(WIDTH) if entry.vector is None else entry.vector.flatten().float()
    answers = torch.zeros(SKETCH) if entry.answers is None else entry.answers.flatten().float()
    return {
        "key": entry.key,
        "model": entry.model,
        "place": entry.place,
        "base": card.base if card else None,
        "architecture": card.architecture if card else None,
        "tokenizer": card.tokenizer if card else None,
        "licence": entry.licence,
        "about": entry.about,
        "identity": entry.identity,
        "scores": json.dumps(dict(entry.scores), sort_keys=True),
        "card": json.dumps(asdict(card)) if card else None,
        "parameters": card.parameters if card else None,
        "layers": card.layers if card else None,
        "width": card.width if card else None,
        "difference": bool(card and card.base is not None),
        "has_fingerprint": entry.vector is not None,
        "has_answers": entry.answers is not None,
        "fingerprint": vector.numpy(),
        "answers": answers.numpy(),
    }


def entry_of(row: Mapping[str, Any]) -> Entry:
    """Read an entry from the table's columns."""
    card = None
    if row["card"]:
        card = card_from(json.loads(row["card"]))
    return Entry(
        key=row["key"],
        model=row["model"],
        place=row["place"],
        identity=row["identity"],
        card=card,
        vector=torch.tensor(row["fingerprint"]).float() if row["has_fingerprint"] else None,
        answers=torch.tensor(row["answers"]).float() if row["has_answers"] else None,
        licence=row["licence"],
        about=row["about"] or "",
        scores=json.loads(row["scores"] or "{}"),
    )


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the columns of `FETCHED` to those of `SHOWN`."""
    card = json.loads(row["card"]) if row["card"] else {}
    return {name: row[name] if name in FETCHED else card.get(name) for name in SHOWN}


def renamed(entry: Entry, **changes: Any) -> Entry:
    """Return an entry with some of its values changed."""
    return replace(entry, **changes)
