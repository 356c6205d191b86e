"""Search by task: which models do what a handful of texts show?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from umaf.errors import TaskError
from umaf.extraction import Answered, bind_labels, open_extractor, prototypes
from umaf.generation.finetune import finetune
from umaf.generation.goals import labelled_goal
from umaf.generation.train import Schedule
from umaf.index.answers import answers_of, knowledge
from umaf.index.query import Query, query_vector
from umaf.index.search import Asked, Found, narrowed, nearest
from umaf.index.space import Space
from umaf.index.store import Store
from umaf.models import Model

ROUTES = ("words", "answers", "expert")
BRIEF = Schedule(steps=60, rate=2e-3, batch_size=16)
# Fingerprints without a label word in common have cosines below this.
NEAR = 0.15
# Log-probabilities of a text's own label and of any other, as `prototypes` takes them.
SURE = -30.0


def by_task(
    store: Store,
    query: Query,
    *,
    asked: Asked | None = None,
    route: str | None = None,
    reader: Model | None = None,
) -> Found:
    """Find the models that do what a handful of texts show.

    Args:
        store: where.
        query: texts, with labels or without.
        asked: how the search is narrowed.
        route: "words" compares what each label means, by its word and by where its texts lie, with the fingerprints of
            models whose label words are known, and lets "answers" find the rest; "answers" compares which probes are
            answered alike; neither opens a model. "expert" briefly trains `reader` on the labelled texts, and compares
            what it then answers. When not given, "words" where the query has labels and the store can compare them.
        reader: for "answers" says which texts are alike (shared pieces of words when not given); for "expert" learns.

    Raises:
        TaskError: no such route, or one that needs labels or a reader that were not given.
    """
    how = asked or Asked()
    if how.metric != "cosine":
        raise TaskError(
            f"A search by task compares answers by their cosine, and {how.metric!r} was asked for; leave --metric out."
        )
    worded = can_compare_words(store.space)
    route = route or ("words" if worded and len(query.classes) > 1 else "answers")
    if route == "words":
        if not worded or len(query.classes) < 2:
            raise TaskError(
                "The route words compares label words, and needs texts of two labels or more and a store of the "
                f"extractor answers; got {len(query.classes)} labels and the extractor {store.space.asked}."
            )
        return _by_words(store, query, how, reader)
    vector = task_vector(store.space.texts, query, route=route, reader=reader, cue=store.space.cue)
    return nearest(store, vector, "answers", narrowed(how), how)


def can_compare_words(space: Space) -> bool:
    """Say whether a store's fingerprints tell what label words mean."""
    return space.asked.partition(":")[0] == "answers"


def task_fingerprint(query: Query, extractor: str = "answers") -> Tensor:
    """Turn labelled texts into the fingerprint of a model that answers them so, `[512]` of length 1.

    Example:
        >>> shots = Query(("a fine film", "a dull film", "fine food", "dull food"), ("good", "bad", "good", "bad"))
        >>> round(float(task_fingerprint(shots).norm()), 4)
        1.0
    """
    compute = _opened(extractor)
    labels = query.classes
    scores = torch.full((len(query.texts), len(labels)), SURE)
    scores[torch.arange(len(scores)), torch.tensor([labels.index(label) for label in query.labels])] = 0.0
    vector = bind_labels(prototypes(compute.space.places(query.texts), scores), labels)
    return (vector / vector.norm()).float()


def task_vector(
    probes: Sequence[str],
    query: Query,
    *,
    route: str = "answers",
    reader: Model | None = None,
    cue: str = "answer",
) -> Tensor:
    """Turn a query into the knowledge vector that the routes "answers" and "expert" search with, `[1024]`."""
    if route not in ROUTES:
        raise TaskError(f"No way to search by task is called {route!r}; there are {', '.join(ROUTES)}.")
    if route != "expert":
        return query_vector(query, probes, reader=reader)
    if reader is None or len(query.classes) < 2:
        raise TaskError(
            "The route expert trains a reader on the texts' labels, and needs a --reader and texts of two labels or "
            f"more; got {'a' if reader else 'no'} reader and {len(query.classes)} labels."
        )
    goal = labelled_goal(query.texts, query.cue, query.classes, query.labels)
    tuned = finetune(reader, goal, schedule=BRIEF, truncate=True)
    return knowledge(answers_of(tuned, probes, cue))


def _by_words(store: Store, query: Query, how: Asked, reader: Model | None) -> Found:
    """Search by label words and places first; what has no word in common comes behind, by its answers."""
    found = nearest(store, task_fingerprint(query, store.space.asked), "fingerprint", narrowed(how), how)
    near = [hit for hit in found.hits if hit.similarity >= NEAR]
    if len(near) == how.limit:
        return replace(found, hits=tuple(near), by="words")
    rest = replace(how, limit=how.limit - len(near), without=(*how.without, *(hit.key for hit in near)))
    vector = task_vector(store.space.texts, query, reader=reader, cue=store.space.cue)
    other = nearest(store, vector, "answers", narrowed(rest), rest)
    hits = tuple(replace(hit, rank=rank) for rank, hit in enumerate((*near, *other.hits), start=1))
    by = "words, then answers" if near else "answers"
    return replace(found, hits=hits, by=by, seconds=found.seconds + other.seconds)


@lru_cache(maxsize=2)
def _opened(extractor: str) -> Answered:
    found = open_extractor(extractor)
    if not isinstance(found, Answered):
        raise TaskError(f"Label words cannot be compared with the extractor {extractor}; use answers.")
    return found
