"""How an answer is read from a model: labels as scores, and free text."""

from __future__ import annotations

from umaf.readout.encode import Encoded, encode, prompt_of
from umaf.readout.generate import answer_logits, answer_loss, bits_per_byte, continuations
from umaf.readout.sample import samples
from umaf.readout.scores import (
    Readout,
    answer_position,
    encoded_label_scores,
    label_logits,
    label_scores,
    make_readout,
    pooled,
    prepare,
)
from umaf.readout.verbaliser import answer_tokens, label_tokens

__all__ = [
    "Encoded",
    "Readout",
    "answer_logits",
    "answer_loss",
    "answer_position",
    "answer_tokens",
    "bits_per_byte",
    "continuations",
    "encode",
    "encoded_label_scores",
    "label_logits",
    "label_scores",
    "label_tokens",
    "make_readout",
    "pooled",
    "prepare",
    "prompt_of",
    "samples",
]
