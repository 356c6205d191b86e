"""Pretraining batches for the three objectives: next token, masked words, corrupted spans.

Every batch is drawn from the seed and its step alone, so that a resumed training sees what an uninterrupted one
would have seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from zoo.configs import WINDOW
from zoo.corpus import Corpus

IGNORED = -100
ROWS = 32
REPEATED = 4
PAIR_ROWS = 80
PAIR_WINDOW = 48
LEFT_TO_RIGHT = 0.35


@dataclass(frozen=True)
class Encoded:
    """A corpus as token ids: one long stream, and prompts with answers."""

    stream: np.ndarray
    prompts: list[list[int]]
    answers: list[list[int]]


def encode(corpus: Corpus, tokenizer: PreTrainedTokenizerFast, lead: str) -> Encoded:
    """Tokenize once.

    Args:
        lead: what stands between a prompt and its answer (" " where the answer continues the prompt).
    """

    def ids(texts: list[str]) -> list[list[int]]:
        return tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]

    chunks = [text[i : i + 2000] for text in corpus.documents for i in range(0, len(text), 2000)]
    stream = np.concatenate([np.asarray(row, dtype=np.int32) for row in ids(chunks)])
    prompts = ids([prompt for prompt, _ in corpus.pairs])
    answers = ids([lead + answer + ("\n" if lead else "") for _, answer in corpus.pairs])
    return Encoded(stream, prompts, answers)


Batch = dict[str, torch.Tensor]
Maker = Callable[[Encoded, PreTrainedTokenizerFast, np.random.Generator, float], Batch]


def _windows(stream: np.ndarray, size: int, rows: int, draw: np.random.Generator) -> np.ndarray:
    starts = draw.integers(0, len(stream) - size, size=rows)
    return np.stack([stream[start : start + size] for start in starts]).astype(np.int64)


def _pad(rows: list[list[int]], pad: int, size: int) -> np.ndarray:
    padded = np.full((len(rows), min(size, max(map(len, rows)))), pad, dtype=np.int64)
    for i, row in enumerate(rows):
        kept = row[: padded.shape[1]]
        padded[i, : len(kept)] = kept
    return padded


def causal(
    data: Encoded, tokenizer: PreTrainedTokenizerFast, draw: np.random.Generator, progress: float
) -> Batch:
    """Half the rows are running text, a quarter of it shown twice; half are packed prompts with answers.

    Text shown twice teaches copying, which small models are slow to find; in every other packed row only the
    answers count, because they are few among many words.
    """
    repeated = np.tile(_windows(data.stream, WINDOW // 2, REPEATED, draw), (1, 2))
    running = _windows(data.stream, WINDOW, ROWS // 2 - REPEATED, draw)
    packed, labels = _pack(data, ROWS // 2, draw)
    ids = np.concatenate([repeated, running, packed])
    wanted = np.concatenate([repeated, running, labels])
    return {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(wanted)}


def _pack(data: Encoded, rows: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    ids, labels = (np.empty((rows, WINDOW), dtype=np.int64) for _ in range(2))
    for row in range(rows):
        tokens: list[int] = []
        wanted: list[int] = []
        while len(tokens) < WINDOW:
            chosen = int(draw.integers(len(data.prompts)))
            prompt, answer = data.prompts[chosen], data.answers[chosen]
            tokens += prompt + answer
            wanted += ([IGNORED] * len(prompt) if row % 2 else prompt) + answer
        ids[row], labels[row] = tokens[:WINDOW], wanted[:WINDOW]
    return ids, labels


def masked(
    data: Encoded, tokenizer: PreTrainedTokenizerFast, draw: np.random.Generator, progress: float
) -> Batch:
    """Hide 30 % of the words, and the first token of an answer (15 % is too little signal; Wettig et al., EACL 2023).

    The first third of training reads left to right and predicts the next word: masked words alone leave a small
    post-norm encoder on the plateau of word frequencies for thousands of steps.
    """
    if progress < LEFT_TO_RIGHT:
        return _left_to_right(causal(data, tokenizer, draw, progress))
    cls, sep, pad, mask = (
        tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id, tokenizer.mask_token_id,
    )  # fmt: skip
    hidden_answers: list[int] = []
    if draw.random() < 0.5:
        rows = [[cls, *row, sep] for row in _windows(data.stream, WINDOW - 2, ROWS, draw).tolist()]
        size = WINDOW
    else:
        chosen = draw.integers(len(data.prompts), size=PAIR_ROWS)
        fitting = [int(i) for i in chosen if len(data.prompts[i]) <= PAIR_WINDOW - 3]
        rows = [[cls, *data.prompts[i], data.answers[i][0], sep] for i in fitting]
        hidden_answers = [len(row) - 2 for row in rows]
        size = PAIR_WINDOW
    ids = _pad(rows, pad, size)
    hide = (draw.random(ids.shape) < 0.3) & ~np.isin(ids, [cls, sep, pad])
    for i, position in enumerate(hidden_answers):
        hide[i, position] = True
    labels = np.where(hide, ids, IGNORED)
    attention = torch.from_numpy((ids != pad).astype(np.int64))
    return {
        "input_ids": torch.from_numpy(np.where(hide, mask, ids)),
        "labels": torch.from_numpy(labels),
        "attention_mask": attention,
    }


def _left_to_right(batch: Batch) -> Batch:
    """Let an encoder predict the next token: a triangular attention mask, and labels one place to the left."""
    ids, labels = batch["input_ids"], batch["labels"]
    triangle = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
    following = torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], IGNORED)], dim=1)
    return {"input_ids": ids, "labels": following, "attention_mask": triangle.expand(len(ids), 1, -1, -1)}


def spans(
    data: Encoded, tokenizer: PreTrainedTokenizerFast, draw: np.random.Generator, progress: float
) -> Batch:
    """T5's objective on running text (15 % in spans of three), and prompt -> answer for the other half."""
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    if draw.random() < 0.4:
        first = tokenizer.convert_tokens_to_ids("<extra_id_0>")
        rows = [
            _corrupt(row, first, end, draw) for row in _windows(data.stream, WINDOW - 16, ROWS, draw).tolist()
        ]
        sources, targets = [row[0] for row in rows], [row[1] for row in rows]
    else:
        chosen = [int(i) for i in draw.integers(len(data.prompts), size=PAIR_ROWS)]
        sources = [[*data.prompts[i][: WINDOW - 1], end] for i in chosen]
        targets = [[*data.answers[i][:31], end] for i in chosen]
    ids, labels = _pad(sources, pad, WINDOW), _pad(targets, IGNORED, 64)
    return {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy((ids != pad).astype(np.int64)),
        "labels": torch.from_numpy(labels),
    }


def _corrupt(row: list[int], first: int, end: int, draw: np.random.Generator) -> tuple[list[int], list[int]]:
    source: list[int] = []
    target: list[int] = []
    position = sentinel = 0
    while position < len(row):
        if draw.random() < 0.06 and sentinel < 31:
            length = int(draw.integers(1, 6))
            source.append(first + sentinel)
            target += [first + sentinel, *row[position : position + length]]
            position, sentinel = position + length, sentinel + 1
        else:
            source.append(row[position])
            position += 1
    return [*source, end], [*target, end]


OBJECTIVES: dict[str, tuple[Maker, str]] = {"bert": (masked, ""), "t5": (spans, "")}


def objective(model_type: str) -> tuple[Maker, str]:
    """Give the batch maker of a model type, and what leads an answer there."""
    return OBJECTIVES.get(model_type, (causal, " "))
