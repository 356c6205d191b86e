"""Names read side by side behind a text, in one pass: each sees the text and itself, and none of the others.

Read one after the other, every name would need the text's keys and values again, or a copy of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from umaf.dispatch.kept import can_keep, shareable
from umaf.models import Model, bare
from umaf.readout.encode import Encoded
from umaf.readout.generate import to_the_left


def can_stand_beside(model: Model) -> bool:
    """Say whether a model takes positions and a mask of our own, and looks at all of its past."""
    if not can_keep(model) or "position_ids" not in inspect.signature(bare(model.net).forward).parameters:
        return False
    config: Any = bare(model.net).config
    attends = getattr(config, "_attn_implementation", None) in ("sdpa", "eager")
    return attends and shareable(DynamicCache(config=config))


def read_beside(
    model: Model, batch: Encoded, tokens: Sequence[Sequence[int]], *, cache: Any = None, before: int = 0
) -> Tensor:
    """Read texts with names behind them, and tell how likely each token of a name is.

    A name's last token is not read, because nothing follows it.

    Args:
        model: one that `can_stand_beside`.
        batch: the texts, padded on the right.
        tokens: of each name, at least one.
        cache: of what stands before every text, with a row per text; it is written to.
        before: how many tokens the cache holds; they are no part of the batch.

    Returns:
        Log-probabilities, float32 ``[text, token]``, the tokens of all names one after the other.
    """
    ids, mask = to_the_left(model, batch)
    own = torch.tensor([token for name in tokens for token in name[:-1]], dtype=ids.dtype, device=ids.device)
    lengths = [len(name) - 1 for name in tokens]
    keeps = "logits_to_keep" in inspect.signature(bare(model.net).forward).parameters
    out: Any = model.net(
        input_ids=torch.cat([ids, own.expand(len(ids), -1)], 1),
        attention_mask=_seen(model, mask, before, lengths),
        position_ids=_places(mask, before, lengths),
        **({"past_key_values": cache, "use_cache": True} if cache is not None else {"use_cache": False}),
        **({"logits_to_keep": 1 + len(own)} if keeps else {}),
    )
    after = torch.log_softmax(out.logits[:, -1 - len(own) :].float(), -1)
    places, start = [], 1
    for name in tokens:
        # The first token comes after the text, each other one after the one before it.
        places += [0, *range(start, start + len(name) - 1)]
        start += len(name) - 1
    wanted = torch.tensor([token for name in tokens for token in name], device=ids.device)
    return after[:, torch.tensor(places, device=ids.device), wanted]


def _seen(model: Model, mask: Tensor, before: int, lengths: Sequence[int]) -> Tensor:
    """Say what each token sees, ``[text, 1, token, key]`` to be added: what is before it, and no other name."""
    rows, width, more = len(mask), mask.shape[1], sum(lengths)
    name = torch.tensor([-1] * width + [at for at, size in enumerate(lengths) for _ in range(size)])
    order = torch.ones(width + more, width + more, dtype=torch.bool).tril()
    own = order & ((name[None] == -1) | (name[None] == name[:, None]))
    keys = torch.cat([mask.bool().cpu(), torch.ones(rows, more, dtype=torch.bool)], 1)
    inside = own[None] & keys[:, None]
    seen = torch.cat([torch.ones(rows, width + more, before, dtype=torch.bool), inside], 2).unsqueeze(1)
    dtype = next(bare(model.net).parameters()).dtype
    return torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min).to(mask.device)


def _places(mask: Tensor, before: int, lengths: Sequence[int]) -> Tensor:
    """Give positions: every name goes on where the text ends."""
    text = (mask.cumsum(1) - 1).clamp(min=0) + before
    steps = torch.tensor([step for size in lengths for step in range(1, size + 1)], device=mask.device)
    return torch.cat([text, text[:, -1:] + steps.long()], 1)
