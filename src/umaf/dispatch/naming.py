"""Names scored as continuations of a question: an answer that cannot fail to parse."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from umaf.dispatch.decision import OTHER
from umaf.errors import ProbeError
from umaf.experts.rollout import Answers, likelihood
from umaf.models import Model
from umaf.readout import answer_tokens
from umaf.readout.encode import encode
from umaf.readout.generate import check_writes

CONTENT_FREE = ("", "N/A", "...")
"""Texts that say nothing: what a model names after them is its taste, not an answer."""


def naming_cue(names: Sequence[str], descriptions: Sequence[str] = ()) -> str:
    """Write the words that ask for the kind of a text; a colon and the name follow.

    Example:
        >>> naming_cue(["sums", "lists"], ["arithmetic", ""])
        'kind, one of sums (arithmetic), lists, other'
    """
    told = [
        f"{name} ({about})" if about else name
        for name, about in zip(names, descriptions or [""] * len(names), strict=True)
    ]
    return f"kind, one of {', '.join([*told, OTHER])}"


@torch.inference_mode()
def name_scores(
    model: Model, texts: Sequence[str], names: Sequence[str], cue: str, *, batch_size: int = 16
) -> tuple[Tensor, list[bool]]:
    """Score names as what follows a text and its cue.

    A name's score is the mean log-probability of its tokens, so that a long name is not at a disadvantage. Texts too
    long for the window beside the cue are cut from their end.

    Args:
        model: with the head "lm" or "seq2seq".
        texts: what is to be named.
        names: at least one; none without a token.
        cue: what asks for the name.
        batch_size: texts per pass; each takes a row per name.

    Returns:
        float32 ``[text, name]`` on the CPU, and for each text whether it was cut.

    Raises:
        ProbeError: the cue alone fills the window.
    """
    check_writes(model)
    tokens = [answer_tokens(model.tokenizer, name) for name in names]
    longest = max(map(len, tokens))
    room = model.window - longest if model.head == "lm" and model.window is not None else None
    try:
        batch = encode(model, texts, cue, max_length=room, truncate=True)
    except ProbeError as problem:
        raise ProbeError(
            f"Requests were to be sorted by the names of {len(names)} experts, which do not fit the window of "
            f'"{model.name}" ({model.window} tokens); shorten names and descriptions, or sort by probe or few-shot.'
        ) from problem
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in tokens], device=model.device)
    mask = torch.tensor([[k < len(row) for k in range(longest)] for row in tokens], device=model.device)
    found = []
    for rows in torch.arange(len(batch)).split(batch_size):
        part = batch.take(rows)
        said = Answers(ids.repeat(len(part), 1), mask.repeat(len(part), 1), ())
        chances = likelihood(model, part, said).gather(2, said.ids.unsqueeze(2)).squeeze(2)
        mean = chances.masked_fill(~said.mask, 0.0).sum(1) / said.mask.sum(1)
        found.append(mean.reshape(len(part), len(names)).cpu())
    was_cut = [
        batch.cut > 0 and encode(model, [text], cue, max_length=room, truncate=True).cut > 0 for text in texts
    ]
    return torch.cat(found), was_cut


def unbiased(scores: Tensor, taste: Tensor) -> Tensor:
    """Take the taste for names off their scores, and turn them into shares.

    Args:
        scores: ``[text, name]``.
        taste: the same for texts that say nothing, ``[content-free text, name]``.

    Returns:
        ``[text, name]``, each row adding up to one.

    Source: Zhao et al., Calibrate Before Use, 2021 (there p / p_content-free; here in logarithms and per token).

    Example:
        >>> unbiased(torch.tensor([[-1.0, -2.0]]), torch.tensor([[-1.0, -3.0]])).argmax(1).item()
        1
    """
    return (scores - taste.mean(0)).softmax(1)
