"""Names scored as continuations of a question: an answer that cannot fail to parse."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from umaf.dispatch.beside import can_stand_beside, read_beside
from umaf.dispatch.decision import OTHER
from umaf.errors import ProbeError
from umaf.experts.rollout import Answers, likelihood
from umaf.models import Model
from umaf.readout import answer_tokens
from umaf.readout.encode import Encoded, encode
from umaf.readout.generate import check_writes

CONTENT_FREE = ("", "N/A", "...")
"""Texts that say nothing: what a model names after them is its taste, not an answer."""


def kinds_line(names: Sequence[str], descriptions: Sequence[str] = ()) -> str:
    """Write the words that say which kinds there are.

    Example:
        >>> kinds_line(["sums", "lists"], ["arithmetic", ""])
        'kinds: sums (arithmetic), lists, other'
    """
    return f"kinds: {_told(names, descriptions)}"


def naming_cue(names: Sequence[str], descriptions: Sequence[str] = ()) -> str:
    """Write the words that ask for the kind of a text and say which there are; a colon and the name follow.

    Example:
        >>> naming_cue(["sums", "lists"], ["arithmetic", ""])
        'kind, one of sums (arithmetic), lists, other'
    """
    return f"kind, one of {_told(names, descriptions)}"


def _told(names: Sequence[str], descriptions: Sequence[str]) -> str:
    told = [
        f"{name} ({about})" if about else name
        for name, about in zip(names, descriptions or [""] * len(names), strict=True)
    ]
    return ", ".join([*told, OTHER])


def name_scores(
    model: Model, texts: Sequence[str], names: Sequence[str], cue: str, *, batch_size: int = 16
) -> tuple[Tensor, list[bool]]:
    """Score names as what follows a text and its cue: the mean of what `token_scores` gives for their tokens.

    A mean, so that a long name is not at a disadvantage.

    Returns:
        float32 ``[text, name]`` on the CPU, and for each text whether it was cut.
    """
    found, cut = token_scores(model, texts, names, cue, batch_size=batch_size)
    return mean_by_name(found, model, names), cut


@torch.inference_mode()
def token_scores(
    model: Model, texts: Sequence[str], names: Sequence[str], cue: str, *, batch_size: int = 16
) -> tuple[Tensor, list[bool]]:
    """Score every token of names as what follows a text, its cue and the tokens before it.

    Texts too long for the window beside the cue are cut from their end.

    Args:
        model: with the head "lm" or "seq2seq".
        texts: what is to be named.
        names: at least one; none without a token.
        cue: what asks for the name.
        batch_size: texts per pass.

    Returns:
        Log-probabilities, float32 ``[text, token]`` on the CPU, the tokens of all names one after the other, and for
        each text whether it was cut.

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
    order = batch.mask.sum(1).argsort(stable=True)
    read = read_beside if can_stand_beside(model) else _one_by_one
    found = torch.cat([read(model, batch.take(rows), tokens).cpu() for rows in order.split(batch_size)])
    return torch.empty_like(found).index_copy_(0, order.cpu(), found), cut_ones(
        model, texts, cue, room, batch
    )


def _one_by_one(model: Model, batch: Encoded, tokens: Sequence[Sequence[int]]) -> Tensor:
    """Read every name after a copy of what was read of the text; what any model that writes can do."""
    longest = max(map(len, tokens))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in tokens], device=model.device)
    mask = torch.tensor([[k < len(row) for k in range(longest)] for row in tokens], device=model.device)
    said = Answers(ids.repeat(len(batch), 1), mask.repeat(len(batch), 1), ())
    chances = likelihood(model, batch, said).gather(2, said.ids.unsqueeze(2)).squeeze(2)
    return chances.reshape(len(batch), -1)[:, mask.flatten()]


def cut_ones(model: Model, texts: Sequence[str], cue: str, room: int | None, batch: Encoded) -> list[bool]:
    """Say which texts lost their end when a batch of them was encoded."""
    return [
        batch.cut > 0 and encode(model, [text], cue, max_length=room, truncate=True).cut > 0 for text in texts
    ]


def mean_by_name(scores: Tensor, model: Model, names: Sequence[str]) -> Tensor:
    """Average scores of tokens, ``[text, token]``, over each name, ``[text, name]``."""
    sizes = [len(answer_tokens(model.tokenizer, name)) for name in names]
    return torch.stack([part.mean(1) for part in scores.split(sizes, 1)], 1)


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
