"""The models of a store as the page shows them: lists, cards, a search, two side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from umaf.errors import UmafError
from umaf.extraction import DISTANCES, SIMILARITIES, FingerprintCard, similarity
from umaf.index import Asked, Entry, Found, Query, Store, by_fingerprint, by_model, by_task
from umaf.index.entry import SHOWN
from umaf.index.store import both, quoted
from umaf.index.words import by_words
from umaf.serve.faults import Fault

NEIGHBOURS = 5


class Filter(BaseModel):
    """Conditions on the card; those that are not given let everything through.

    Attributes:
        architecture: family.
        base: of the model.
        licence: as its card names it.
        fewest: parameters at least.
        most: parameters at most.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: str | None = Field(default=None, max_length=300)
    base: str | None = Field(default=None, max_length=1000)
    licence: str | None = Field(default=None, max_length=300)
    fewest: int | None = Field(default=None, ge=0)
    most: int | None = Field(default=None, ge=0)

    def condition(self) -> str | None:
        """Write them as the store takes them.

        Example:
            >>> Filter(architecture="llama", most=2_000_000).condition()
            "(architecture = 'llama') AND (parameters <= 2000000)"
        """
        found: str | None = None
        for name in ("architecture", "base", "licence"):
            value = getattr(self, name)
            found = both(found, f"{name} = {quoted(value)}" if value else None)
        if self.fewest is not None:
            found = both(found, f"parameters >= {self.fewest}")
        return both(found, None if self.most is None else f"parameters <= {self.most}")


class Search(BaseModel):
    """A search as the page asks for it.

    Attributes:
        by: "texts", "model" or "words".
        texts: of a task; at least one for "texts".
        labels: one for each text, or none.
        model: key of a model in the store, for "model".
        words: for "words".
        metric: a registered similarity, for "model".
        per_base: take off what all models of a base share, for "model".
        filter: on the card.
        limit: how many.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: Literal["texts", "model", "words"]
    texts: tuple[str, ...] = Field(default=(), max_length=2000)
    labels: tuple[str, ...] = ()
    model: str | None = None
    words: str = Field(default="", max_length=2000)
    metric: str = "cosine"
    per_base: bool = False
    filter: Filter = Filter()
    limit: int = Field(default=20, ge=1, le=500)


def listed(store: Store, asked: Filter, *, limit: int) -> list[dict[str, Any]]:
    """List models by name."""
    rows = store.rows(asked.condition(), limit=limit)
    shown = [
        {**{name: row[name] for name in SHOWN}, "scores": json.loads(row["scores"] or "{}")} for row in rows
    ]
    return sorted(shown, key=lambda row: (row["model"], row["key"]))


def known_values(rows: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Give the values that occur on cards, for a filter to choose from."""
    return {
        name: sorted({row[name] for row in rows if row[name]}) for name in ("architecture", "base", "licence")
    }


def entry_at(store: Store, key: str) -> Entry:
    """Give one entry.

    Raises:
        Fault: there is none.
    """
    found = store.entries(f"key = {quoted(key)}", limit=1)
    if not found:
        raise Fault(
            404, f"The store has no model with the key {key[:60]!r}; reload the page.", "no_such_model"
        )
    return found[0]


def card(entry: Entry) -> dict[str, Any]:
    """Give all that is known of a model, without its vectors."""
    return {
        "key": entry.key,
        "model": entry.model,
        "place": entry.place,
        "identity": entry.identity,
        "licence": entry.licence,
        "about": entry.about,
        "scores": dict(entry.scores),
        "fingerprint": entry.vector is not None,
        "answers": entry.answers is not None,
        "card": None if entry.card is None else asdict(entry.card),
    }


def searched(store: Store, asked: Search) -> dict[str, Any]:
    """Search.

    Raises:
        Fault: what is searched by was not given.
        UmafError: the texts tell nothing apart, or no such metric.
    """
    how = Asked(asked.filter.condition(), asked.limit, asked.metric, per_base=asked.per_base)
    if asked.by == "texts":
        texts = tuple(text for text in asked.texts if text.strip())
        if not texts:
            raise Fault(
                400, "A search by texts was asked for without a text; paste at least one.", param="texts"
            )
        return plain(by_task(store, Query(texts, asked.labels), asked=how))
    if asked.by == "model":
        if not asked.model:
            raise Fault(400, "A search by model was asked for without a model; choose one.", param="model")
        return plain(by_model(store, entry_at(store, asked.model).key, asked=how))
    if not asked.words.strip():
        raise Fault(400, "A search by words was asked for without a word; type one.", param="words")
    return plain(by_words(store, asked.words, how))


def compared(store: Store, first: str, second: str) -> dict[str, Any]:
    """Put two models side by side.

    Args:
        store: where both are.
        first: key of the one.
        second: key of the other.

    Returns:
        Both cards, what differs in them, every similarity that can be computed, and the nearest of each.

    Raises:
        Fault: one is not there, or both are the same.
    """
    if first == second:
        raise Fault(400, "A model was to be compared with itself; choose another.", param="b")
    one, other = entry_at(store, first), entry_at(store, second)
    mine, yours = card(one), card(other)
    names = ("licence", *(field.name for field in fields(FingerprintCard)))
    rows = [
        {"name": name, "a": _of(mine, name), "b": _of(yours, name)}
        for name in names
        if name not in ("model", "sources", "weights") and _of(mine, name) != _of(yours, name)
    ]
    likeness, why_not = _likeness(one, other)
    return {
        "a": mine,
        "b": yours,
        "differs": rows,
        "similarities": likeness,
        "why_not": why_not,
        "near_a": _near(store, one),
        "near_b": _near(store, other),
    }


def _likeness(one: Entry, other: Entry) -> tuple[list[dict[str, Any]], str | None]:
    """Compute every similarity; say why there is none of fingerprints."""
    found: list[dict[str, Any]] = []
    if one.answers is not None and other.answers is not None:
        found.append(
            {"metric": "answers (cosine)", "value": float(one.answers @ other.answers), "distance": False}
        )
    mine, yours = one.fingerprint(), other.fingerprint()
    if mine is None or yours is None:
        name = one.model if mine is None else other.model
        return found, f"{name} is known by its outputs alone, so that only answers are compared."
    if (mine.card.base is None) != (yours.card.base is None):
        return found, "One fingerprint tells what was learned since a base, the other what a model is."
    for name in SIMILARITIES.names():
        # One that needs more than the vectors has nothing to compare here.
        with suppress(UmafError):
            value = similarity(mine, yours, name)
            found.append({"metric": name, "value": value, "distance": name in DISTANCES})
    return found, None


def _near(store: Store, entry: Entry) -> list[dict[str, Any]]:
    how, own = Asked(limit=NEIGHBOURS, without=(entry.key,)), entry.fingerprint()
    # The entry is at hand: by its key the store would look for it again.
    found = by_model(store, entry.key, asked=how) if own is None else by_fingerprint(store, own, how)
    return plain(found)["hits"]


def _of(shown: dict[str, Any], name: str) -> Any:
    value = shown[name] if name in shown else (shown["card"] or {}).get(name)
    return list(value) if isinstance(value, tuple) else value


def plain(found: Found) -> dict[str, Any]:
    """Give a search's answer as JSON has it."""
    return {**asdict(found), "hits": [asdict(hit) for hit in found.hits]}
