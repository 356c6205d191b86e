"""Texts as batches of tokens, with the prompt each kind of head expects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from umaf.errors import ProbeError
from umaf.models import Model


@dataclass(frozen=True)
class Encoded:
    """Tokens of a batch of texts, padded on the right.

    Attributes:
        ids: ``[text, token]`` token ids.
        mask: ``[text, token]`` 1 for tokens of the text, 0 for padding.
        last: ``[text]`` where the answer is read: the mask token, otherwise the last token.
        cut: how many texts lost tokens to the window.
    """

    ids: Tensor
    mask: Tensor
    last: Tensor
    cut: int

    def __len__(self) -> int:
        return self.ids.shape[0]

    def take(self, rows: Sequence[int] | Tensor) -> Encoded:
        """Chooses texts and drops the padding that they do not need."""
        chosen = torch.as_tensor(rows, device=self.ids.device)
        longest = int(self.mask[chosen].sum(1).max())
        return Encoded(self.ids[chosen, :longest], self.mask[chosen, :longest], self.last[chosen], self.cut)


def prompt_of(model: Model, text: str, cue: str | None) -> str:
    """The text with the words that ask for an answer, as the model's head reads it.

    Args:
        model: decides the form by its head.
        text: the text alone.
        cue: the word before the answer; None leaves the text alone.

    Returns:
        ``text\\ncue:`` for models that continue, ``text cue: [MASK]`` for masked ones, otherwise the text.
    """
    if cue is None or model.head in ("classifier", "base"):
        return text
    return f"{text} {cue}: {model.tokenizer.mask_token}" if model.head == "masked" else f"{text}\n{cue}:"


def encode(
    model: Model,
    texts: Sequence[str],
    cue: str | None = None,
    *,
    max_length: int | None = None,
    truncate: bool = False,
) -> Encoded:
    """Builds the prompts and tokenises them.

    Args:
        model: any opened model.
        texts: at least one text.
        cue: the word before the answer; None for the text alone.
        max_length: most tokens per prompt; the model's window when None.
        truncate: cut a text that is too long from its end; the cue always stays.

    Returns:
        The batch, on the model's device.

    Raises:
        ProbeError: no texts, a text without tokens, a prompt that is too long and may not be cut, or
            a cue that leaves no room for the text.
    """
    if not texts:
        raise ProbeError("Texts were asked for, but the list is empty; give at least one.")
    limit = _limit(model, max_length)
    prompts = [prompt_of(model, text, cue) for text in texts]
    batch = model.tokenizer(
        prompts, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False
    )
    rows, cut = [], 0
    for i, text in enumerate(texts):
        special = batch["special_tokens_mask"][i]
        row = _keep_open(model, batch["input_ids"][i], special)
        if not row:
            raise ProbeError(f"Text {i + 1} of {len(texts)} has no tokens; remove it.")
        if limit is not None and len(row) > limit:
            if not truncate:
                raise ProbeError(
                    f"Text {i + 1} of {len(texts)} has {len(row)} tokens with its prompt, but "
                    f'"{model.name}" has room for {limit}; shorten it, or ask for truncation (--truncate).'
                )
            ends = [end for _, end in batch["offset_mapping"][i]]
            row = _shorten(row, [n <= len(text) and not s for n, s in zip(ends, special, strict=True)], limit)
            cut += 1
        rows.append(row)
    return _pad(model, rows, cut, masked=cue is not None and model.head == "masked")


def _limit(model: Model, max_length: int | None) -> int | None:
    given = [length for length in (max_length, model.window) if length is not None]
    return min(given) if given else None


def _keep_open(model: Model, ids: list[int], special: list[int]) -> list[int]:
    """Takes end tokens off a prompt that the model has to continue."""
    end = len(ids)
    if model.head == "lm":
        while end > 1 and special[end - 1]:
            end -= 1
    return ids[:end]


def _shorten(row: list[int], part: list[bool], limit: int) -> list[int]:
    """Removes the last tokens of the text's own part until the row fits."""
    own = [i for i, mine in enumerate(part[: len(row)]) if mine]
    surplus = len(row) - limit
    if surplus >= len(own):
        raise ProbeError(
            f"The cue and the special tokens alone need {len(row) - len(own)} of {limit} tokens; shorten the cue."
        )
    gone = set(own[-surplus:])
    return [token for i, token in enumerate(row) if i not in gone]


def _pad(model: Model, rows: list[list[int]], cut: int, *, masked: bool) -> Encoded:
    longest = max(map(len, rows))
    pad = model.tokenizer.pad_token_id
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    if masked:
        # The last one, should a text itself name the mask token.
        last = [len(row) - 1 - row[::-1].index(model.tokenizer.mask_token_id) for row in rows]
    else:
        last = [len(row) - 1 for row in rows]
    return Encoded(ids.to(model.device), mask.to(model.device), torch.tensor(last, device=model.device), cut)


def forward(model: Model, batch: Encoded, **more: Any) -> Any:
    """Runs the model on a batch, without a cache; ``more`` goes to the network's own forward."""
    if model.kind != "encoder":
        more.setdefault("use_cache", False)
    return model.net(input_ids=batch.ids, attention_mask=batch.mask, **more)
