"""Which token of one tokenizer has read as far as which token of another, by the characters they end at."""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

AFTER = sys.maxsize
"""Where a special token behind the text ends: after every character."""


def align(source_ends: Sequence[int], target_ends: Sequence[int]) -> list[int]:
    """Find, for every target token, the last source token that ends at or before the same character.

    What a causal model computes at that source token has read all the text that the target token has
    read, as far as the source's tokens allow, and nothing behind it.

    Args:
        source_ends: the character each source token ends at, never decreasing; see `token_ends`.
        target_ends: the same of the target's tokens.

    Returns:
        One position among the source tokens per target token; -1 where the source's first token ends
        later. Of source tokens that end together the last is taken, but two equal sequences are
        aligned one to one.

    Example:
        >>> align([2, 5, 9], [3, 5, 7, 9])  # "ab|cde|fghi" read by "abc|de|fg|hi"
        [0, 1, 1, 2]
    """
    if list(source_ends) == list(target_ends):
        return list(range(len(target_ends)))
    return [bisect_right(source_ends, end) - 1 for end in target_ends]


def token_ends(tokenizer: Any, prompts: Sequence[str], rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Say up to which character of its prompt each token reads.

    Args:
        tokenizer: a fast tokenizer.
        prompts: texts as the tokenizer gets them.
        rows: token ids of each prompt as the model gets them: the tokenizer's own, possibly without
            tokens cut from one place, such as the end or the end of the text before a cue.

    Returns:
        Per prompt one number per token, never decreasing. A special token before the text ends at 0,
        one behind it at `AFTER`.

    Example:
        >>> from umaf.models.tokenizer import byte_tokenizer
        >>> token_ends(byte_tokenizer(), ["abcd"], [[97, 98, 100]])
        [[1, 2, 4]]
    """
    encoded = tokenizer(
        list(prompts), return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False
    )
    parts = zip(
        rows, encoded["input_ids"], encoded["offset_mapping"], encoded["special_tokens_mask"], strict=True
    )
    return [_kept(list(row), list(ids), _ends(spans, special)) for row, ids, spans, special in parts]


def _ends(spans: Sequence[tuple[int, int]], special: Sequence[int]) -> list[int]:
    """End of each token of a whole prompt; tokens without a character end where the one before does."""
    first = next((at for at, added in enumerate(special) if not added), len(special))
    ends = (
        AFTER if added and at > first else end
        for at, ((_, end), added) in enumerate(zip(spans, special, strict=True))
    )
    return list(accumulate(ends, max))


def _kept(row: list[int], ids: list[int], ends: list[int]) -> list[int]:
    """Ends of the tokens that are left: what both sequences begin with, and the rest from the end."""
    same = next((at for at, (one, other) in enumerate(zip(row, ids, strict=False)) if one != other), len(row))
    return ends[:same] + ends[len(ends) - (len(row) - same) :] if same < len(row) else ends[:same]
