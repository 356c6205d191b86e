"""Answers drawn from a model, and how likely a model finds given answers.

The prompt of a group of answers is read once: its key-value cache is copied for the group, when answers are drawn and
when gradients are taken. With prompts of forty tokens and answers of five that saves most of the work.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from umaf.errors import ConfigError, ModelError, ProbeError
from umaf.models import Model, bare
from umaf.readout.encode import Encoded, encode
from umaf.readout.generate import line_ends, to_the_left


@dataclass(frozen=True)
class Answers:
    """Answers of one batch.

    Attributes:
        ids: ``[row, token]``; what follows an answer's end is padding.
        mask: ``[row, token]``, True up to and with the token that ends the answer.
        texts: the answers as text, one per row.
    """

    ids: Tensor
    mask: Tensor
    texts: tuple[str, ...]


class Prompted:
    """A model that has read a batch of prompts, each for some copies, and can be given what follows.

    Args:
        model: with the head "lm" or "seq2seq".
        prompts: padded on the right, as `encode` gives them.
        copies: rows per prompt, one after the other.

    Raises:
        ModelError: the model does not write.
    """

    def __init__(self, model: Model, prompts: Encoded, copies: int = 1) -> None:
        if model.head not in ("lm", "seq2seq"):
            raise ModelError(
                f'Answers were asked from "{model.name}", but its head ({model.head}) does not write; use a language '
                "model."
            )
        self._net: Any = model.net
        self._seq2seq = model.head == "seq2seq"
        takes = inspect.signature(bare(model.net).forward).parameters
        self._places = "position_ids" in takes
        if self._seq2seq:
            self._read_encoder(model, prompts, copies)
            return
        ids, mask = to_the_left(model, prompts)
        more: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
        out = self._net(
            input_ids=ids, attention_mask=mask, use_cache=True, **self._at(mask, ids.shape[1]), **more
        )
        self._cache = out.past_key_values
        if copies > 1:
            self._cache.batch_repeat_interleave(copies)
        self._mask = mask.repeat_interleave(copies, 0)
        self.first = out.logits[:, -1].repeat_interleave(copies, 0)

    def _read_encoder(self, model: Model, prompts: Encoded, copies: int) -> None:
        read = bare(self._net).get_encoder()(input_ids=prompts.ids, attention_mask=prompts.mask)
        read.last_hidden_state = read.last_hidden_state.repeat_interleave(copies, 0)
        self._mask = prompts.mask.repeat_interleave(copies, 0)
        self._encoded = read
        self._written = torch.full_like(self._mask[:, :1], int(model.config.decoder_start_token_id))
        self.first = self._decoded()[:, -1]

    def _decoded(self) -> Tensor:
        out = self._net(
            encoder_outputs=self._encoded,
            attention_mask=self._mask,
            decoder_input_ids=self._written,
            use_cache=False,
        )
        return out.logits

    def _at(self, mask: Tensor, count: int) -> dict[str, Tensor]:
        """Positions of the last `count` tokens; padding on the left has none."""
        return {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)[:, -count:]} if self._places else {}

    def extend(self, tokens: Tensor) -> Tensor:
        """Read what follows, ``[row, token]``; gives logits ``[row, token, vocabulary]`` of what comes after each."""
        if self._seq2seq:
            self._written = torch.cat([self._written, tokens], 1)
            return self._decoded()[:, -tokens.shape[1] :]
        self._mask = torch.cat([self._mask, torch.ones_like(tokens)], 1)
        out = self._net(
            input_ids=tokens,
            attention_mask=self._mask,
            past_key_values=self._cache,
            use_cache=True,
            **self._at(self._mask, tokens.shape[1]),
        )
        return out.logits


def prompts_of(
    model: Model, texts: Sequence[str], cue: str | None, *, max_new_tokens: int, truncate: bool = False
) -> Encoded:
    """Tokenise prompts so that answers still fit the model's window.

    Raises:
        ConfigError: the answers alone fill the window.
        ProbeError: a prompt does not fit and may not be cut.
    """
    room = model.window - max_new_tokens if model.head == "lm" and model.window is not None else None
    if room is not None and room < 1:
        raise ConfigError(
            f'Answers of {max_new_tokens} tokens were asked for, but "{model.name}" reads {model.window}; ask for '
            "fewer."
        )
    try:
        return encode(model, texts, cue, max_length=room, truncate=truncate)
    except ProbeError as problem:
        if truncate or room is None:
            raise
        raise ProbeError(
            f"{problem} (of the window, {max_new_tokens} tokens are kept for the answer)"
        ) from problem


@torch.no_grad()
def draw(
    model: Model,
    prompts: Encoded,
    *,
    copies: int = 1,
    temperature: float = 1.0,
    max_new_tokens: int = 16,
    generator: torch.Generator | None = None,
) -> Answers:
    """Draw answers, each up to the end of its line.

    Args:
        model: with the head "lm" or "seq2seq".
        prompts: a batch.
        copies: answers per prompt.
        temperature: 0 takes the likeliest token; otherwise logits are divided by it.
        max_new_tokens: longest answer.
        generator: of the draws, on the CPU; needed when the temperature is above 0.

    Returns:
        ``copies`` answers for the first prompt, then for the second, and so on.
    """
    read = Prompted(model, prompts, copies)
    ends = torch.cat([line_ends(model), torch.tensor(_end(model), dtype=torch.long, device=model.device)])
    logits, tokens, alive = read.first, [], []
    going = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
    for step in range(max_new_tokens):
        chosen = _choose(logits.float(), temperature, generator)
        chosen = torch.where(going, chosen, torch.full_like(chosen, model.tokenizer.pad_token_id))
        tokens.append(chosen)
        alive.append(going)
        going = going & ~torch.isin(chosen, ends)
        if not going.any() or step == max_new_tokens - 1:
            break
        logits = read.extend(chosen[:, None])[:, -1]
    ids, mask = torch.stack(tokens, 1), torch.stack(alive, 1)
    return Answers(ids, mask, tuple(_texts(model, ids, mask)))


def likelihood(model: Model, prompts: Encoded, answers: Answers, *, temperature: float = 1.0) -> Tensor:
    """Log-probabilities of every token at every place of given answers; gradients flow.

    Args:
        model: with the head "lm" or "seq2seq".
        prompts: what was answered; the answers' rows are copies of it.
        answers: what `draw` gave.
        temperature: divides the logits, as in the drawing.

    Returns:
        float32 ``[row, token, vocabulary]``.
    """
    read = Prompted(model, prompts, len(answers.ids) // len(prompts))
    logits = read.first[:, None]
    if answers.ids.shape[1] > 1:
        logits = torch.cat([logits, read.extend(answers.ids[:, :-1])], 1)
    return torch.log_softmax(logits.float() / temperature, -1)


def answered(
    model: Model, texts: Sequence[str], cue: str | None, *, max_new_tokens: int = 16, batch_size: int = 128
) -> list[str]:
    """Let a model answer texts, always taking the likeliest token.

    Returns:
        One answer per text, in their order.
    """
    prompts = prompts_of(model, texts, cue, max_new_tokens=max_new_tokens)
    found: list[str] = []
    for rows in torch.arange(len(prompts)).split(batch_size):
        found += draw(model, prompts.take(rows), temperature=0.0, max_new_tokens=max_new_tokens).texts
    return found


def _end(model: Model) -> list[int]:
    end = model.tokenizer.eos_token_id
    return [] if end is None else [int(end)]


def _choose(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    if temperature == 0:
        return logits.argmax(-1)
    # The draw is made on the CPU, so that a device does not change it.
    shares = torch.softmax(logits / temperature, -1).cpu()
    return torch.multinomial(shares, 1, generator=generator)[:, 0].to(logits.device)


def _texts(model: Model, ids: Tensor, mask: Tensor) -> list[str]:
    rows = [row[kept].tolist() for row, kept in zip(ids.cpu(), mask.cpu(), strict=True)]
    return [
        text.split("\n")[0].strip() for text in model.tokenizer.batch_decode(rows, skip_special_tokens=True)
    ]
