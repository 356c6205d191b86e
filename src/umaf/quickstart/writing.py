"""What the target writes before and after: answers to the cue, and plain text by the same dice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from umaf import seeds
from umaf.activations import ANCHORS
from umaf.models import Model, bare
from umaf.models.quiet import quiet
from umaf.quickstart.material import Expert
from umaf.readout import continuations
from umaf.readout.generate import bits_per_byte
from umaf.tasks.task import prompt

OPENINGS = ("Once upon a time there was a", "The little girl went to the")
PLAIN = 128
EACH = 2


@dataclass(frozen=True)
class Written:
    """One prompt with what followed it.

    Attributes:
        prompt: what the target was given.
        before: what the bare target wrote.
        after: what it wrote with the adapter.
        note: the right answer and the source's; empty for plain text.
    """

    prompt: str
    before: str
    after: str
    note: str = ""


def answers_written(experts: Sequence[Expert], before: Model, after: Model) -> list[Written]:
    """Let the target answer held-out texts in its own words: the likeliest token each time, nothing filtered."""
    found = []
    for expert in (one for one in experts if one.source):
        # The hardest level, and the first text of each label in the set's own order: nobody picked them.
        firsts = {example.answer: example for example in reversed(expert.task.test)}
        chosen = [firsts[label] for label in expert.task.labels if label in firsts][:EACH]
        texts = [example.text for example in chosen]
        pair = [continuations(model, texts, expert.task.cue, max_new_tokens=12) for model in (before, after)]
        for example, old, new in zip(chosen, *pair, strict=True):
            note = f"right answer: {example.answer}; {expert.short} comes from {expert.model.name}"
            found.append(Written(prompt(expert.task.cue, example.text), old, new, note))
    return found


def plain_text(before: Model, after: Model, *, seed: int) -> list[Written]:
    """Let the target go on with two openings that ask for nothing, drawn with the same dice."""
    return [
        Written(opening, *(_sample(model, opening, seed) for model in (before, after)))
        for opening in OPENINGS
    ]


def plain_bits(model: Model) -> float:
    """Measure bits per byte of plain sentences that have nothing to do with the capabilities."""
    return bits_per_byte(model, list(ANCHORS[:PLAIN]))


def _sample(model: Model, opening: str, seed: int) -> str:
    ids = model.tokenizer(opening, return_tensors="pt").to(model.device)
    with torch.random.fork_rng(devices=[]), torch.inference_mode(), quiet():
        torch.manual_seed(seeds.derive(seed, "quickstart", "sample", opening) % 2**63)
        out = cast(Any, bare(model.net)).generate(
            input_ids=ids["input_ids"],
            attention_mask=ids["attention_mask"],
            do_sample=True,
            temperature=0.7,
            top_p=0.9,
            max_new_tokens=28,
            pad_token_id=model.tokenizer.pad_token_id,
        )
    new = out[0, ids["input_ids"].shape[1] :]
    return " ".join(model.tokenizer.decode(new, skip_special_tokens=True).split())
