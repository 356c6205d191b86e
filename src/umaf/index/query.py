"""A task as a query: a handful of texts, with labels or without, turned into the vector that models are found by."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from umaf.activations import capture
from umaf.errors import ConfigError, TaskError
from umaf.index.answers import knowledge
from umaf.models import Model

# Of cosines between texts: the smaller, the more the nearest text decides.
WARMTH = 0.1


@dataclass(frozen=True)
class Query:
    """Texts that show what is looked for.

    Attributes:
        texts: at least one.
        labels: one for each text; empty where nobody knows.
        cue: the word before an answer, where a reader needs one.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()
    cue: str = "answer"

    def __post_init__(self) -> None:
        if not self.texts or (self.labels and len(self.labels) != len(self.texts)):
            raise TaskError(
                f"A search by task needs at least one text, and a label for all of them or for none; got "
                f"{len(self.texts)} texts and {len(self.labels)} labels."
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """Give the labels that occur, each once, in the order of the alphabet."""
        return tuple(sorted(set(self.labels)))


def read_query(path: str | Path) -> Query:
    """Read a query from a file.

    Args:
        path: .txt with one text per line, or .jsonl with {"text", "label"} per line, the label on all lines or none.

    Raises:
        TaskError: no such file, or a line that cannot be read.

    Example:
        >>> read_query("nowhere.txt")
        Traceback (most recent call last):
        ...
        umaf.errors.TaskError: There is no query at nowhere.txt; give a .txt or .jsonl file.
    """
    file = Path(path)
    if not file.is_file():
        raise TaskError(f"There is no query at {path}; give a .txt or .jsonl file.")
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as problem:
        reason = getattr(problem, "strerror", None) or "it is not UTF-8"
        raise TaskError(
            f"The query {path} cannot be read ({reason}); give a .txt or .jsonl file."
        ) from problem
    if file.suffix != ".jsonl":
        return Query(tuple(lines))
    texts, labels = [], []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            texts.append(str(row["text"]))
        except (ValueError, KeyError, TypeError):
            raise TaskError(
                f'Line {number} of the query {path} has no "text"; write {{"text": …, "label": …}} on every line.'
            ) from None
        label = row.get("label", row.get("answer"))
        labels += [] if label is None else [str(label)]
    return Query(tuple(texts), tuple(labels))


def query_vector(query: Query, probes: Sequence[str], *, reader: Model | None = None) -> Tensor:
    """Give a query the knowledge vector that a model would have that answers each probe as the nearest texts are.

    Args:
        query: texts, with labels or without; without, each text is its own label, so that what counts is which probes
            lie near the texts and near which of them.
        probes: the store's probes.
        reader: a model whose activations say which texts are near; by shared pieces of words when not given.

    Returns:
        `[1024]` float32.

    Raises:
        ConfigError: no text has anything in common with any probe.

    Example:
        >>> shots = Query(("a fine film", "a dull film"), ("good", "bad"))
        >>> found = query_vector(shots, ["so fine", "how dull", "films"])
        >>> round(float(found.norm()), 4)
        1.0
    """
    near = _nearness(probes, query.texts, reader)
    labels = query.labels or tuple(str(number) for number in range(len(query.texts)))
    names = sorted(set(labels))
    which = torch.zeros(len(labels), len(names))
    which[torch.arange(len(labels)), torch.tensor([names.index(label) for label in labels])] = 1
    if not query.labels:
        # What lies far from all texts shares one more answer: none of them.
        far = (1 - near.amax(1, keepdim=True)).clamp(0, 1)
        return knowledge(torch.cat([near.clamp_min(0) @ which, far], dim=1))
    found = knowledge((near / WARMTH).softmax(-1) @ which)
    if not bool(found.any()):
        raise ConfigError(
            "The texts of the query do not tell the store's probes apart; give more texts, two labels or more, or name "
            "a --reader."
        )
    return found


def _nearness(probes: Sequence[str], texts: Sequence[str], reader: Model | None) -> Tensor:
    """Cosines `[probe, text]`."""
    if reader is None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        pieces = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
        rows = np.asarray(pieces.fit_transform([*probes, *texts]).todense())
        both = torch.from_numpy(rows).float()
    else:
        both = capture(reader, [*probes, *texts], depths=(1.0,), truncate=True)[0].float()
        both = both - both.mean(0)
        both = both / both.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return both[: len(probes)] @ both[len(probes) :].T
