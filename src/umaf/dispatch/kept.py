"""The key-value cache of the last reply, kept for a request that begins as that one did and gets the same mixture.

A conversation repeats itself: each turn's prompt is the last one, its reply, and a few words more. Where the mixture is
the same, keys and values of what is repeated are the same too, so only the new words are read. Another mixture computes
others, so it begins anew.
"""

from __future__ import annotations

import inspect
from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from umaf.models import Model, bare


class Kept:
    """What one model has read and written last, one row."""

    def __init__(self) -> None:
        self._mixture: Hashable = None
        self._ids: list[int] = []
        self._cache: Any = None
        self.reused = 0
        """Tokens that the last request did not have to read again."""

    def reader(self, model: Model, ids: list[int], mixture: Hashable) -> Reader:
        """Read a prompt, from where it departs from what was read last.

        Args:
            model: a decoder, with the mixture on it.
            ids: the prompt's tokens.
            mixture: stands for the weights; equal only for equal weights.
        """
        same = 0
        if self._cache is not None and mixture == self._mixture and shareable(self._cache):
            # The last token is always read, because its logits are wanted.
            for old, new in zip(self._ids, ids[:-1], strict=False):
                if old != new:
                    break
                same += 1
        cache: Any = self._cache if same else DynamicCache(config=bare(model.net).config)
        if same:
            cache.crop(same - cache.get_seq_length())
        # Nothing is kept while it is being written to: an interruption leaves an empty place.
        self._mixture, self._ids, self._cache, self.reused = mixture, [], None, same
        return Reader(self, model, cache, ids, same)

    def keep(self, cache: Any, ids: list[int]) -> None:
        """Keep a cache that holds exactly these tokens."""
        self._cache, self._ids = cache, ids


class Reader:
    """A model that has read one prompt; it reads on as `umaf.experts.rollout.Prompted` does."""

    def __init__(self, home: Kept, model: Model, cache: Any, ids: list[int], same: int) -> None:
        self._home, self._net, self._cache = home, model.net, cache
        self._ids = list(ids[:same])
        takes = inspect.signature(bare(model.net).forward).parameters
        self._last = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
        new = torch.tensor([ids[same:]], device=model.device)
        self.first: Tensor = self.extend(new)[:, -1]

    def extend(self, tokens: Tensor) -> Tensor:
        """Read what follows, ``[1, token]``; gives logits whose last place is what comes after it."""
        self._home.keep(None, [])
        out = self._net(input_ids=tokens, past_key_values=self._cache, use_cache=True, **self._last)
        self._cache = out.past_key_values
        self._ids += tokens[0].tolist()
        self._home.keep(self._cache, self._ids)
        return out.logits


def can_keep(model: Model) -> bool:
    """Say whether a model is a decoder with a cache that can be handed back to it."""
    return model.head == "lm" and "past_key_values" in inspect.signature(bare(model.net).forward).parameters


def shareable(cache: Any) -> bool:
    """Say whether a cache holds every token by itself, so that its end can be taken off and its beginning shared."""
    layers = getattr(cache, "layers", None)
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
