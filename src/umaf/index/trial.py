"""Try what was found: run the best few models on the query's own texts, and rank them by what they achieve there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor

from umaf.errors import TaskError, UmafError
from umaf.index.build import Opening
from umaf.index.entry import Entry
from umaf.index.query import Query
from umaf.index.search import Found
from umaf.index.store import Store, quoted
from umaf.index.told import Ask, asks_of
from umaf.index.unlabelled import Heard, beside, heard, heard_in_turn
from umaf.models import Model
from umaf.readout import label_scores


def try_found(
    store: Store, found: Found, query: Query, *, many: int = 5, opening: Opening | None = None
) -> Found:
    """Run models of a search on the texts it was asked with, and put those that do best first.

    With labels the first models are judged by the share of texts they label as the query does, and among equals by how
    likely they find those labels. Without labels models are run in turn, one of every group of label words first, and
    judged as `umaf.index.unlabelled` tells; search for many more hits than are to be shown. A model that cannot be
    opened, or has no labels to say, stays behind those that were tried.

    Args:
        store: that was searched.
        found: what the search found.
        query: the texts.
        many: how many models to run.
        opening: how they are opened.

    Returns:
        The hits in their new order, each with what it achieved.

    Raises:
        TaskError: less than one model to try.
    """
    if many < 1:
        raise TaskError(f"A trial runs one model or more, and {many} were asked for; give a larger number.")
    shown, how = found.hits[:many] if query.labels else found.hits, opening or Opening()
    listed = ", ".join(quoted(hit.key) for hit in shown) or "''"
    entries = {entry.key: entry for entry in store.entries(f"key IN ({listed})") if entry.place}
    if query.labels:
        worth = _labelled(entries, query, how)
    else:
        keys = [hit.key for hit in shown if hit.key in entries and asks_on(entries[hit.key])]
        worth = _unlabelled([entries[key] for key in keys], query, how, probes=store.space.texts, many=many)
    best = sorted((hit for hit in shown if hit.key in worth), key=lambda hit: worth[hit.key], reverse=True)
    judged = [replace(hit, tried=worth[hit.key][0]) for hit in best]
    ordered = [*judged, *(hit for hit in found.hits if hit.key not in worth)]
    hits = tuple(replace(hit, rank=rank) for rank, hit in enumerate(ordered, start=1))
    return replace(found, hits=hits, by=f"{found.by}; {len(judged)} tried")


def achieved(model: Model, query: Query, told: Sequence[Ask] = ()) -> tuple[float, float]:
    """Judge a model on labelled texts: the share of right labels, and the mean likelihood of them; 0 without them."""
    classes = query.classes
    wanted = {label.casefold() for label in classes}
    own = next((one for one in told if wanted <= {label.casefold() for label in one.labels}), None)
    try:
        scores = _scores(model, query.texts, own or Ask(query.cue, classes))
    except UmafError:
        return 0.0, 0.0
    names = [label.casefold() for label in (own.labels if own else classes)]
    right = torch.tensor([names.index(label.casefold()) for label in query.labels])
    chosen = (scores.argmax(1) == right).float().mean()
    return float(chosen), float(scores.exp()[torch.arange(len(right)), right].mean())


def hear(model: Model, query: Query, probes: Sequence[str], told: Sequence[Ask] = ()) -> list[Heard]:
    """Ask a model for all it can say about unlabelled texts, and about some of a store's probes."""
    texts = [*query.texts, *beside(probes)]
    return [
        heard(ask.labels, _scores(model, texts, ask), len(query.texts))
        for ask in asks_of(model, told, query.cue)
    ]


def asks_on(entry: Entry) -> tuple[Ask, ...]:
    """Read what a model can be asked from its entry's card."""
    return asks_from(entry.card.words) if entry.card else ()


def asks_from(words: Sequence[str]) -> tuple[Ask, ...]:
    """Group the words of a card by their cue.

    Example:
        >>> asks_from(("tone: good", "tone: bad"))
        (Ask(cue='tone', labels=('good', 'bad')),)
    """
    groups: dict[str, list[str]] = {}
    for word in words:
        cue, _, label = word.partition(": ")
        groups.setdefault(cue, []).append(label)
    return tuple(Ask(cue, tuple(labels)) for cue, labels in groups.items())


def group_of(asks: Sequence[Ask]) -> tuple[tuple[str, ...], ...]:
    """Name the group of models that can say the same words, whatever their order and cue."""
    return tuple(sorted(tuple(sorted(label.casefold() for label in one.labels)) for one in asks))


def _labelled(entries: Mapping[str, Entry], query: Query, opening: Opening) -> dict[str, tuple[float, float]]:
    found = {}
    for key, entry in entries.items():
        with suppress(UmafError):
            found[key] = achieved(opening(str(entry.place)), query, asks_on(entry))
    return found


def _unlabelled(
    entries: Sequence[Entry], query: Query, opening: Opening, *, probes: Sequence[str], many: int
) -> dict[str, tuple[float, float]]:
    def run(at: int) -> Sequence[Heard]:
        try:
            return hear(opening(str(entries[at].place)), query, probes, asks_on(entries[at]))
        except UmafError:
            return []

    worth = heard_in_turn([group_of(asks_on(entry)) for entry in entries], run, many=many)
    return {entries[at].key: (value, value) for at, value in worth.items()}


def _scores(model: Model, texts: Sequence[str], ask: Ask) -> Tensor:
    own = {label.casefold() for label in model.labels}
    # Words that a card gives to the classes of a classifier stand in their order.
    labels = (
        ()
        if own and own != {label.casefold() for label in ask.labels} and len(own) == len(ask.labels)
        else ask.labels
    )
    return label_scores(model, texts, labels, ask.cue, truncate=True)
