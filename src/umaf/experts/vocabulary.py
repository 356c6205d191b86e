"""What one model's next token says of another model's: a change of logits carried between vocabularies.

A model is about to write a string; another would begin the same string with another token. So the probability of a
token flows to the first token that the other model writes of its string, and a token that gets none takes the change of
the first token that its own string has there: " past" of one model and " p", with which the other begins it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from umaf.models import Model


@dataclass(frozen=True)
class TokenMap:
    """Which tokens of a source speak for which of a target.

    Attributes:
        source: ids of the source's tokens, ``[pair]``.
        row: for which of the target's tokens each speaks, as a place in `target`, ``[pair]``.
        target: ids of the target's tokens that are spoken for, ``[token]``.
    """

    source: Tensor
    row: Tensor
    target: Tensor

    def carry(self, before: Tensor, after: Tensor) -> Tensor:
        """Give the change of the target's log-probabilities.

        Args:
            before: the source's logits, ``[text, vocabulary]``.
            after: the same, changed.

        Returns:
            ``[text, token]`` in the order of `target`, less its mean.
        """
        change = self._gathered(after) - self._gathered(before)
        return (change - change.mean(1, keepdim=True)).float()

    def _gathered(self, logits: Tensor) -> Tensor:
        shares = logits.double().softmax(-1)[:, self.source]
        sums = torch.zeros(len(logits), len(self.target), dtype=torch.float64).index_add(1, self.row, shares)
        return sums.clamp_min(1e-300).log()


def token_map(source: Model, target: Model) -> TokenMap | None:
    """Match two vocabularies; None where nothing of one can be written by the other.

    Example:
        >>> from umaf.models import open_model
        >>> llama = open_model("zoo:llama-1m")
        >>> same = token_map(llama, llama)
        >>> bool((same.source == same.target[same.row]).all())
        True
    """
    theirs, own = _texts(source.tokenizer), _texts(target.tokenizer)
    flows = [(at, first) for at, first in _firsts(theirs, target.tokenizer, own).items() if first in own]
    spoken = {first for _, first in flows}
    rest = {at: text for at, text in own.items() if at not in spoken}
    flows += [(first, at) for at, first in _firsts(rest, source.tokenizer, theirs).items() if first in theirs]
    if not flows:
        return None
    ids = sorted({at for _, at in flows})
    row = {at: place for place, at in enumerate(ids)}
    pairs = torch.tensor([(at, row[to]) for at, to in flows])
    return TokenMap(pairs[:, 0], pairs[:, 1], torch.tensor(ids))


def _texts(tokenizer: Any) -> dict[int, str]:
    """What each token writes, for tokens of printable ASCII; the marks of a leading space become one."""
    special, found = set(tokenizer.all_special_ids), {}
    for token, at in tokenizer.get_vocab().items():
        text = token.replace("Ġ", " ").replace("▁", " ").replace("Ċ", "\n")
        if at not in special and text and text.isascii() and not text.startswith("<0x"):
            found[at] = text
    return found


def _firsts(texts: Mapping[int, str], tokenizer: Any, known: Mapping[int, str]) -> dict[int, int]:
    """The first token that a tokenizer writes of each text; of a text that it has whole, that token."""
    whole = {text: at for at, text in known.items()}
    found = {at: whole[text] for at, text in texts.items() if text in whole}
    left = [at for at in texts if at not in found]
    if left:
        rows = tokenizer([texts[at] for at in left], add_special_tokens=False)["input_ids"]
        found |= {at: row[0] for at, row in zip(left, rows, strict=True) if row}
    return found
