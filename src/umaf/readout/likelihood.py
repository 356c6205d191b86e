"""How likely a model finds a text, or an answer after a text: the numbers behind choices, pairs and bits per byte."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from umaf.errors import ProbeError, TaskError
from umaf.models import Model
from umaf.readout.encode import Encoded, forward
from umaf.readout.generate import answer_ids, answer_logits


@dataclass(frozen=True)
class Likelihood:
    """How likely some texts are.

    Attributes:
        nats: log-likelihood of each, natural logarithm, 0 or less.
        tokens: how many tokens of each were read.
        size: how many bytes of UTF-8 those stand for.
    """

    nats: tuple[float, ...]
    tokens: tuple[int, ...]
    size: tuple[int, ...]


def answer_likelihood(
    model: Model, texts: Sequence[str], answers: Sequence[str], cue: str, *, batch_size: int = 16
) -> Likelihood:
    """Give the likelihood of an answer after each text; texts that do not fit lose their end, never the cue.

    A decoder and an encoder-decoder read the answer's tokens one after the other. A masked model reads each of them
    with that one token masked (pseudo-log-likelihood, Salazar et al., ACL 2020, equation 1).

    Args:
        model: with the head "lm", "seq2seq" or "masked".
        texts: what is asked.
        answers: one per text.
        cue: the word before the answer.
        batch_size: texts per pass; a masked model reads that many masked copies.

    Returns:
        One number per text.

    Raises:
        TaskError: the head predicts no text.
    """
    check_predicts(model)
    if model.head == "masked":
        prompts = [f"{text} {cue}: " for text in texts]
        return _masked(model, prompts, answers, batch_size=batch_size)
    nats: list[float] = []
    tokens: list[int] = []
    with torch.inference_mode():
        for start in range(0, len(texts), batch_size):
            chosen = slice(start, start + batch_size)
            logits, targets = answer_logits(
                model, texts[chosen], answers[chosen], cue, truncate=True, ended=False
            )
            counts = [len(answer_ids(model, answer, ended=False)) for answer in answers[chosen]]
            each = -functional.cross_entropy(logits, targets, reduction="none")
            nats += [float(part.sum()) for part in each.split(counts)]
            tokens += counts
    return Likelihood(tuple(nats), tuple(tokens), _bytes(answers))


def text_likelihood(model: Model, texts: Sequence[str], *, batch_size: int = 16) -> Likelihood:
    """Give the likelihood of whole texts, however long.

    A decoder begins behind its first special token and reads a text that is longer than its window in windows that
    overlap by half, each token once. An encoder-decoder writes the text behind an empty one, cut to its window. A
    masked model gives the pseudo-log-likelihood.

    Args:
        model: with the head "lm", "seq2seq" or "masked".
        texts: at least one character each.
        batch_size: texts per pass.

    Raises:
        TaskError: the head predicts no text.
        ProbeError: a text has no tokens, or no token before which it could begin.
    """
    check_predicts(model)
    if model.head == "masked":
        return _masked(model, [""] * len(texts), texts, batch_size=batch_size)
    with torch.inference_mode():
        if model.head == "seq2seq":
            return _written(model, texts, batch_size)
        found = [_whole(model, text) for text in texts]
    # Where there is nothing to begin behind, the first token is given and its bytes do not count.
    return Likelihood(*(tuple(column) for column in zip(*found, strict=True)))


def check_predicts(model: Model) -> None:
    """Stop at a model whose head says nothing about words.

    Raises:
        TaskError: its head is not "lm", "seq2seq" or "masked".
    """
    if model.head not in ("lm", "seq2seq", "masked"):
        raise TaskError(
            f'The likelihood of texts was asked from "{model.name}", but its head ({model.head}) predicts no words; '
            "use a language model, or a masked one."
        )


def _whole(model: Model, text: str) -> tuple[float, int, int]:
    """One text through a decoder: nats, tokens, bytes."""
    encoded = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, spans = list(encoded["input_ids"]), encoded["offset_mapping"]
    start = next(
        (one for one in (model.tokenizer.bos_token_id, model.tokenizer.eos_token_id) if one is not None), None
    )
    given = 0 if start is not None else 1
    if len(ids) <= given:
        raise ProbeError(
            f"A text of at least {given + 1} tokens was needed, but {text[:40]!r} has {len(ids)}; leave it out."
        )
    row = ([start] if start is not None else []) + ids
    size = len(text[spans[given - 1][1] if given else 0 :].encode("utf-8"))
    nats = 0.0
    for window, fresh in _windows(len(row), model.window):
        part = torch.tensor([row[window]], device=model.device)
        batch = Encoded(part, torch.ones_like(part), torch.tensor([part.shape[1] - 1]), 0)
        logits = forward(model, batch).logits[0, -fresh - 1 : -1].float()
        nats -= float(functional.cross_entropy(logits, part[0, -fresh:], reduction="sum"))
    return nats, len(row) - 1, size


def _windows(length: int, most: int | None) -> Iterator[tuple[slice, int]]:
    """Cut a row into windows that overlap by half; with each, how many of its last tokens are new in it.

    Example:
        >>> [(w.start, w.stop, fresh) for w, fresh in _windows(10, 6)]
        [(0, 6, 5), (3, 9, 3), (4, 10, 1)]
    """
    most = length if most is None else min(most, length)
    end, done = most, 1
    while True:
        yield slice(end - most, end), end - done
        if end == length:
            return
        done, end = end, min(length, end + max(1, most // 2))


def _written(model: Model, texts: Sequence[str], batch_size: int) -> Likelihood:
    """Texts through a decoder whose encoder reads nothing but the end of a text."""
    nats: list[float] = []
    tokens: list[int] = []
    sizes: list[int] = []
    most = model.window or 512
    for start in range(0, len(texts), batch_size):
        rows = []
        for text in texts[start : start + batch_size]:
            read = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            rows.append(read["input_ids"][:most])
            sizes.append(len(text[: read["offset_mapping"][:most][-1][1]].encode("utf-8")))
        longest = max(map(len, rows))
        pad, first = model.tokenizer.pad_token_id, model.config.decoder_start_token_id
        ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows], device=model.device)
        empty = torch.full((len(rows), 1), model.tokenizer.eos_token_id, device=model.device)
        batch = Encoded(empty, torch.ones_like(empty), torch.zeros(len(rows), dtype=torch.long), 0)
        inputs = torch.cat([torch.full_like(ids[:, :1], first), ids[:, :-1]], dim=1)
        logits = forward(model, batch, decoder_input_ids=inputs).logits.float()
        losses = functional.cross_entropy(logits.transpose(1, 2), ids, reduction="none")
        nats += [-float(loss[: len(row)].sum()) for loss, row in zip(losses, rows, strict=True)]
        tokens += [len(row) for row in rows]
    return Likelihood(tuple(nats), tuple(tokens), tuple(sizes))


def _masked(model: Model, prompts: Sequence[str], answers: Sequence[str], *, batch_size: int) -> Likelihood:
    """Mask the answers' tokens one at a time."""
    nats, tokens = [0.0] * len(answers), [0] * len(answers)
    copies: list[tuple[int, Tensor, int]] = []
    for which, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        ids, places = _placed(model, prompt, answer)
        tokens[which] = len(places)
        copies += [(which, ids, place) for place in places]
    pad, mask = model.tokenizer.pad_token_id, model.tokenizer.mask_token_id
    with torch.inference_mode():
        for start in range(0, len(copies), batch_size):
            part = copies[start : start + batch_size]
            ids = torch.nn.utils.rnn.pad_sequence([one[1] for one in part], True, pad).to(model.device)
            read = torch.nn.utils.rnn.pad_sequence([torch.ones_like(one[1]) for one in part], True, 0)
            rows = torch.arange(len(part), device=model.device)
            places = torch.tensor([one[2] for one in part], device=model.device)
            wanted = ids[rows, places]
            ids[rows, places] = mask
            logits = forward(model, Encoded(ids, read.to(model.device), places, 0)).logits[rows, places]
            losses = functional.cross_entropy(logits.float(), wanted, reduction="none")
            for (which, _, _), loss in zip(part, losses.tolist(), strict=True):
                nats[which] -= loss
    return Likelihood(tuple(nats), tuple(tokens), _bytes(answers))


def _placed(model: Model, prompt: str, answer: str) -> tuple[Tensor, list[int]]:
    """Tokens of a prompt with its answer, and the places of the answer's; a long prompt loses its beginning."""
    encoded = model.tokenizer(
        prompt + answer, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False
    )
    ids, special = encoded["input_ids"], encoded["special_tokens_mask"]
    mine = [
        end > len(prompt) and not odd
        for (_, end), odd in zip(encoded["offset_mapping"], special, strict=True)
    ]
    surplus = len(ids) - (model.window or len(ids))
    if surplus > 0:
        own = [i for i, odd in enumerate(special) if not odd]
        gone = set(own[:surplus])
        ids = [token for i, token in enumerate(ids) if i not in gone]
        mine = [one for i, one in enumerate(mine) if i not in gone]
    places = [i for i, one in enumerate(mine) if one]
    if not places:
        raise ProbeError(
            f"The text {answer[:40]!r} has no tokens in the window of {model.name}; leave it out."
        )
    return torch.tensor(ids), places


def _bytes(texts: Sequence[str]) -> tuple[int, ...]:
    return tuple(len(text.encode("utf-8")) for text in texts)
