"""Capabilities that plain texts make by themselves: clusters, and sets of words.

A generator that has only seen the bank's subjects reads texts of other subjects worse than before. So its material gets
classifications of any text: which of a few clusters a text lies in, or which of a few drawn sets of words it has a word
of, under label words that mean nothing by it.

Source: Hsu, Levine and Finn, Unsupervised learning via meta-learning, ICLR 2019, for clusters in drawn scalings of a
space.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from umaf import seeds
from umaf.tasks.task import Example, Task

EACH, LEAST = 70, 30
"""Texts of a label at most and at least."""
MOST = 7
"""Labels."""
SHARE = 0.12
"""Of the texts, for validation capabilities alone."""
Draw = Callable[[np.random.Generator, int], list[np.ndarray] | None]


def sentences(data: Path, *, each: int, letters: int) -> list[str]:
    """Read so many sentences of every running text of a data folder, cut short; none where there is no such text."""
    found: list[str] = []
    for file in sorted(data.glob("lm/*/train.txt")):
        text = re.sub(r"\s+", " ", file.read_text(encoding="utf-8"))
        parts = [part[:letters].strip() for part in re.split(r"(?<=[.!?;])\s", text) if len(part) > 30]
        parts = [part for part in dict.fromkeys(parts) if "<unk>" not in part]
        order = np.random.default_rng(seeds.derive(0, "selfmade", file.parent.name)).permutation(len(parts))
        found += [parts[at] for at in order[:each]]
    return found


def selfmade(
    texts: Sequence[str], *, train: int, validation: int, words: Sequence[str], cues: Sequence[str]
) -> list[tuple[str, Task]]:
    """Make capabilities of texts, every second one of clusters.

    Args:
        texts: plain texts; validation capabilities get some that train ones never see.
        train: how many to train on.
        validation: how many to look at.
        words: label words to draw from.
        cues: cues to draw from.

    Returns:
        (split, task) pairs; tasks have training texts alone.
    """
    order = np.random.default_rng(seeds.derive(0, "selfmade", "parts")).permutation(len(texts))
    cut = int(SHARE * len(texts))
    found = []
    for split, count, rows in (("train", train, order[cut:]), ("validation", validation, order[:cut])):
        own = [texts[at] for at in sorted(rows)]
        makers = (_word_sets(own), _clusters(own)) if count else ()
        random = np.random.default_rng(seeds.derive(0, "selfmade", split))
        made = 0
        while made < count:
            groups = makers[made % 2](
                random, int(random.integers(2, MOST + 1)) if random.random() < 0.6 else 2
            )
            if groups is None:
                continue
            found.append((split, _task(f"selfmade/{split}-{made:03d}", own, groups, random, words, cues)))
            made += 1
    return found


def _clusters(texts: Sequence[str]) -> Draw:
    """Draw groups of texts that lie together, in drawn scalings of the principal directions of their words."""
    counts = TfidfVectorizer(sublinear_tf=True, min_df=3, ngram_range=(1, 2), max_features=30000)
    table = counts.fit_transform(texts)
    flat = TruncatedSVD(min(100, table.shape[1] - 1), random_state=0).fit_transform(table)
    flat = flat / np.linalg.norm(flat, axis=1, keepdims=True).clip(1e-9)

    def draw(random: np.random.Generator, count: int) -> list[np.ndarray] | None:
        rows = random.permutation(len(texts))[:3500]
        scaled = flat[rows] * np.exp(random.normal(size=(1, flat.shape[1])))
        means = KMeans(
            int(random.choice([8, 16, 32])), n_init=1, max_iter=20, random_state=int(random.integers(2**31))
        )
        lies = means.fit_predict(scaled)
        large = [one for one in range(means.n_clusters) if (lies == one).sum() >= LEAST]
        if len(large) < count:
            return None
        # Two labels are as often three clusters each, which have no more in common than that.
        several = 3 if count == 2 and len(large) >= 6 and random.random() < 0.5 else 1
        chosen = random.permutation(large)[: count * several]
        return [random.permutation(rows[np.isin(lies, chosen[at::count])])[:EACH] for at in range(count)]

    return draw


def _word_sets(texts: Sequence[str]) -> Draw:
    """Draw sets of words, and the texts that have a word of one set alone."""
    spoken = [set(re.findall(r"[a-z']+", text.lower())) for text in texts]
    often = Counter(word for one in spoken for word in one)
    usual = sorted(word for word, count in often.items() if 12 <= count <= len(texts) // 20)

    def draw(random: np.random.Generator, count: int) -> list[np.ndarray] | None:
        size = int(random.choice([8, 20, 40]))
        if len(usual) < size:
            return None
        sets = [set(random.choice(usual, size, replace=False)) for _ in range(count)]
        rows: list[list[int]] = [[] for _ in sets]
        for at in random.permutation(len(texts)):
            hit = [number for number, one in enumerate(sets) if spoken[at] & one]
            if len(hit) == 1 and len(rows[hit[0]]) < EACH:
                rows[hit[0]].append(int(at))
        return [np.array(one) for one in rows] if min(map(len, rows)) >= LEAST else None

    return draw


def _task(
    name: str,
    texts: Sequence[str],
    groups: Sequence[np.ndarray],
    random: np.random.Generator,
    words: Sequence[str],
    cues: Sequence[str],
) -> Task:
    plain = len(groups) == 2 and random.random() < 0.5
    labels = ("yes", "no") if plain else tuple(random.choice(words, len(groups), replace=False).tolist())
    shown = [Example(texts[row], label) for label, rows in zip(labels, groups, strict=True) for row in rows]
    shown = [shown[at] for at in random.permutation(len(shown))]
    return Task(name, "classification", labels, str(random.choice(cues)), tuple(shown), (), (), "", "")
