"""The behavioural token: how likely a language model finds the anchor texts, beside its base.

Texts, not tokens, are compared, so the log-likelihood is counted per byte: tokenizers never have to agree.
"""

from __future__ import annotations

import torch
from torch import Tensor

from umaf.activations import ANCHORS, pad, token_ids
from umaf.models import Model


def behaviour(model: Model, base: Model | None, *, batch_size: int = 64) -> Tensor | None:
    """Read by how much a model's likelihood of each anchor text differs from its base's.

    Args:
        model: the model.
        base: the model it was fine-tuned from; None compares it with nothing.
        batch_size: texts per pass.

    Returns:
        `[2, anchor]` float32, nats per byte: own minus base, and the base's minus their mean (the own ones twice
        without a base). None where one of them has no head that continues a text.
    """
    if model.head != "lm" or (base is not None and base.head != "lm"):
        return None
    own = _likelihood(model, batch_size)
    before = own if base is None else _likelihood(base, batch_size)
    middle = before - before.mean()
    return torch.stack([middle if base is None else own - before, middle])


def _likelihood(model: Model, batch_size: int) -> Tensor:
    """Mean log-likelihood of each anchor's tokens behind its first, per byte of the text, `[anchor]`."""
    rows = token_ids(model, list(ANCHORS))
    sizes = torch.tensor([len(text.encode()) for text in ANCHORS])
    fill = model.tokenizer.pad_token_id
    found = []
    for start in range(0, len(rows), batch_size):
        ids, mask = pad(rows[start : start + batch_size], 0 if fill is None else fill, model.device)
        with torch.no_grad():
            logits = model.net(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
        each = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
        found.append((each * mask[:, 1:]).sum(1).cpu())
    return torch.cat(found) / sizes
