"""Plain text before a target: what it says there as it is, and how far an adapter leads it away from that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from umaf.activations import token_ids
from umaf.models import Model

LENGTH = 32
MASKED = 0.15


class Plain:
    """Plain texts as rows of tokens, end to end, for one target.

    Args:
        model: the target; an adapter around its network stays active where it is asked.
        texts: plain texts; none shorter than the window is needed.
    """

    def __init__(self, model: Model, texts: Sequence[str]) -> None:
        self.model, self.texts = model, tuple(texts)

    def rows(self, random: np.random.Generator, count: int) -> Int[Tensor, "row token"]:
        """Draw rows of `LENGTH` tokens; what a masked model reads has some of its tokens hidden."""
        ids: list[int] = []
        while len(ids) < count * LENGTH:
            [row] = token_ids(self.model, [self.texts[int(random.integers(len(self.texts)))]], truncate=True)
            ids += row
        found = torch.tensor(ids[: count * LENGTH]).view(count, LENGTH)
        if self.model.head == "masked":
            hidden = torch.from_numpy(random.random(found.shape) < MASKED)
            found = torch.where(hidden, torch.tensor(self.model.tokenizer.mask_token_id), found)
        return found.to(self.model.device)

    def said(self, rows: Int[Tensor, "row token"]) -> Float[Tensor, "row place number"]:
        """Give log-probabilities at every place; hidden states of a model without a head that predicts."""
        more: dict[str, Any] = {}
        if self.model.head == "seq2seq":
            # It reads the first half, and writes the second.
            rows, more["decoder_input_ids"] = rows.chunk(2, dim=1)
        if self.model.kind != "encoder":
            more["use_cache"] = False
        out = self.model.net(input_ids=rows, attention_mask=torch.ones_like(rows), **more)
        return (
            out.last_hidden_state.float() if self.model.head == "base" else out.logits.float().log_softmax(-1)
        )

    def lost(self, before: Tensor, after: Tensor) -> Tensor:
        """Measure how far a model was led away: divergence in nats per place, or the share of hidden states' length.

        Args:
            before: what the bare target said.
            after: what it says with an adapter; gradients flow.
        """
        if self.model.head == "base":
            return ((after - before).square().sum(-1) / before.square().sum(-1).clamp_min(1e-12)).mean()
        return functional.kl_div(after, before, log_target=True, reduction="none").sum(-1).mean()
