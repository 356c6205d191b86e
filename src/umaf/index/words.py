"""Search over names and model cards by words: what people do without fingerprints, kept as a baseline."""

from __future__ import annotations

import json
import time

from umaf.index.entry import SHOWN
from umaf.index.search import Asked, Found, hits_of
from umaf.index.store import Store


def by_words(store: Store, words: str, asked: Asked | None = None) -> Found:
    """Rank models by the cosine between words and what their names, cards and measured tasks say (tf-idf).

    Args:
        store: where.
        words: any text.
        asked: how the search is narrowed; the metric is not used.

    Returns:
        Models with at least one word in common, best first.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    how = asked or Asked()
    began = time.perf_counter()
    rows = store.rows(how.where, columns=[*SHOWN, "about"])
    said = [
        f"{row['model'].replace('-', ' ').replace('_', ' ')} {row['about'] or ''} {' '.join(json.loads(row['scores']))}"
        for row in rows
    ]
    found = []
    if rows:
        pieces = TfidfVectorizer(sublinear_tf=True)
        table = pieces.fit_transform([*said, words])
        likeness = (table[:-1] @ table[-1].T).toarray()[:, 0]
        found = [
            {**row, "similarity": float(value)}
            for row, value in zip(rows, likeness, strict=True)
            if value > 0
        ]
    best = sorted(found, key=lambda row: (-row["similarity"], row["key"]))[: how.limit]
    return Found(hits_of(best), "words", "cosine", len(store), True, 1.0, time.perf_counter() - began)
