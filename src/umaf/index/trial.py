"""Try what was found: run the best few models on the query's own texts, and rank them by what they achieve there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from umaf.errors import TaskError, UmafError
from umaf.index.build import Opening
from umaf.index.entry import Entry
from umaf.index.query import Query
from umaf.index.search import Found, Hit
from umaf.index.store import Store, quoted
from umaf.index.told import Ask, asks_of
from umaf.models import Model
from umaf.readout import label_scores


def try_found(
    store: Store, found: Found, query: Query, *, many: int = 5, opening: Opening | None = None
) -> Found:
    """Run the first models of a search on the texts it was asked with, and put those that do best first.

    With labels a model is judged by the share of texts it labels as the query does, and among equals by how likely it
    finds those labels. Without labels it is judged by how evenly it uses its own labels while being sure of each text:
    the mutual information of text and label, as a share of what is possible. A model that cannot be opened, or has no
    labels to say, stays behind those that were tried.

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
    listed = ", ".join(quoted(hit.key) for hit in found.hits[:many]) or "''"
    entries = {entry.key: entry for entry in store.entries(f"key IN ({listed})")}
    judged: list[tuple[tuple[float, float], Hit]] = []
    rest = []
    for hit in found.hits:
        worth = _worth(entries.get(hit.key), query, opening or Opening())
        if worth is None:
            rest.append(hit)
        else:
            judged.append((worth, replace(hit, tried=worth[0])))
    judged.sort(key=lambda one: one[0], reverse=True)
    ordered = [*(hit for _, hit in judged), *rest]
    hits = tuple(replace(hit, rank=rank) for rank, hit in enumerate(ordered, start=1))
    return replace(found, hits=hits, by=f"{found.by}; {len(judged)} tried")


def achieved(model: Model, query: Query, told: Sequence[Ask] = ()) -> tuple[float, float] | None:
    """Judge a model on a query: share of right labels and mean likelihood of them, or None where it cannot say them.

    Without labels: the best mutual information among what it can be asked, twice.
    """
    if not query.labels:
        each = [_informed(_scores(model, query, one)) for one in asks_of(model, told, query.cue)]
        return (max(each), max(each)) if each else None
    classes = query.classes
    wanted = {label.casefold() for label in classes}
    own = next((one for one in told if wanted <= {label.casefold() for label in one.labels}), None)
    try:
        scores = _scores(model, query, own or Ask(query.cue, classes))
    except UmafError:
        return 0.0, 0.0
    names = [label.casefold() for label in (own.labels if own else classes)]
    right = torch.tensor([names.index(label.casefold()) for label in query.labels])
    chosen = (scores.argmax(1) == right).float().mean()
    return float(chosen), float(scores.exp()[torch.arange(len(right)), right].mean())


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


def _worth(entry: Entry | None, query: Query, opening: Opening) -> tuple[float, float] | None:
    if entry is None or entry.place is None:
        return None
    try:
        return achieved(opening(entry.place), query, asks_on(entry))
    except UmafError:
        return None


def _scores(model: Model, query: Query, ask: Ask) -> Tensor:
    own = {label.casefold() for label in model.labels}
    # Words that a card gives to the classes of a classifier stand in their order.
    labels = (
        ()
        if own and own != {label.casefold() for label in ask.labels} and len(own) == len(ask.labels)
        else ask.labels
    )
    return label_scores(model, query.texts, labels, ask.cue, truncate=True)


def _informed(scores: Tensor) -> float:
    shares = scores.double().softmax(-1)
    whole = shares.mean(0)
    surprise = -(whole * whole.clamp_min(1e-12).log()).sum()
    left = -(shares * shares.clamp_min(1e-12).log()).sum(1).mean()
    return float((surprise - left) / math.log(shares.shape[1]))
