"""The text that the zoo is pretrained on: running text, and train capabilities written as prompts with answers.

Running text comes from lm/*, reasoning/* and instruct/* of the data folder; capabilities only from the bank's train
split, less every text that a held-out or validation capability holds.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from umaf import seeds
from umaf.tasks import bank, door
from umaf.tasks.task import prompt


@dataclass(frozen=True)
class Corpus:
    """Running text in documents, and prompts with their answers."""

    documents: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]

    def lines(self) -> list[str]:
        """Everything as text, answers after their prompts: what a vocabulary is trained on."""
        return [*self.documents, *(f"{asked} {answer}\n" for asked, answer in self.pairs)]


def read(data: Path, seed: int = 0) -> Corpus:
    """Read the whole corpus from a data folder."""
    load = functools.cache(lambda name: door.load_task(name, data=data))
    forbidden = bank.heldout_texts(load)
    pairs: list[tuple[str, str]] = []
    for name in bank.names("train"):
        if name.startswith("derived/") and not name.endswith("0"):
            continue  # one derived task in ten is enough to show the format; all share the same texts
        task = load(name)
        pairs += [(prompt(task.cue, e.text), e.answer) for e in bank.training_examples(name, load, forbidden)]
    order = np.random.default_rng(seeds.derive(seed, "corpus")).permutation(len(pairs))
    return Corpus(tuple(_running(data)), tuple(pairs[i] for i in order))


def _running(data: Path) -> list[str]:
    documents = [path.read_text(encoding="utf-8") for path in sorted(data.glob("lm/*/train.txt"))]
    for path in sorted(data.glob("reasoning/*/train.jsonl")) + sorted(data.glob("instruct/*/train.jsonl")):
        if path.parent.name in ("mbpp", "strategyqa"):
            continue  # code is far from everything else here; strategyqa's questions are a classification task
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:2500]]
        documents.append("\n".join(f"{row['question']}\n{row['answer']}" for row in rows) + "\n")
    return documents
