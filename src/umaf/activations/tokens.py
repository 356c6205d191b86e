"""Texts to token ids for one pass through a model, with the window checked before anything runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from umaf.errors import ProbeError
from umaf.models import Model

_log = logging.getLogger(__name__)


def too_long(model: Model, texts: Sequence[str]) -> list[int]:
    """Find the texts that do not fit the model's window.

    Args:
        model: an opened model.
        texts: any texts.

    Returns:
        Their positions in `texts`, in order; empty where the window has no end.
    """
    if model.window is None or not texts:
        return []
    return [position for position, row in enumerate(_ids(model, texts)) if len(row) > model.window]


def token_ids(model: Model, texts: Sequence[str], *, truncate: bool = False) -> list[list[int]]:
    """Tokenise texts, special tokens included, without padding.

    Args:
        model: an opened model.
        texts: at least one text.
        truncate: cut texts to the window instead of refusing them, and log how many were cut.

    Returns:
        Token ids of each text.

    Raises:
        ProbeError: no texts, a text without a token, or one longer than the window that may not be cut.
    """
    if not texts:
        raise ProbeError(f"{model.name} was asked to read texts and got none; give at least one.")
    ids = _ids(model, texts)
    long = [
        position for position, row in enumerate(ids) if model.window is not None and len(row) > model.window
    ]
    if long and not truncate:
        raise ProbeError(
            f"{model.name} reads {model.window} tokens at once, and {len(long)} of the given texts are longer, the "
            f"first of them number {long[0] + 1}; shorten them, or ask for truncation (--truncate)."
        )
    if long:
        _log.warning(
            "%s: %d of %d texts were cut to %s tokens", model.name, len(long), len(texts), model.window
        )
        shorter = _ids(
            model, [texts[position] for position in long], truncation=True, max_length=model.window
        )
        for position, row in zip(long, shorter, strict=True):
            ids[position] = row
    for position, row in enumerate(ids):
        if not row:
            raise ProbeError(
                f"text {position + 1} has no token in the vocabulary of {model.name}; remove or change it."
            )
    return ids


def pad(rows: Sequence[Sequence[int]], fill: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pad token ids on the right.

    Right, whatever side the tokenizer prefers: positions of real tokens then do not depend on what
    else is in the batch, in encoders and in decoders alike.

    Args:
        rows: token ids of each text.
        fill: the id to pad with.
        device: where to put the result.

    Returns:
        Ids `[text, token]` and the mask of real tokens `[text, token]`, both int64.
    """
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
    return ids, mask


def _ids(model: Model, texts: Sequence[str], **options: Any) -> list[list[int]]:
    """Tokenise texts, whole unless the options say otherwise."""
    how = {"padding": False, "truncation": False, "verbose": False, **options}
    return [list(row) for row in model.tokenizer(list(texts), **how)["input_ids"]]
