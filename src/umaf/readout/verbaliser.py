"""Labels as single tokens of a vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from umaf.errors import TaskError


def answer_tokens(tokenizer: Any, answer: str, *, leading_space: bool = True) -> list[int]:
    """Tokenises an answer as it stands after a prompt's colon.

    A tokenizer may join a text's first word with a mark of its own, so the answer is tokenised with a
    colon before it and the tokens that end behind the colon are kept.

    Args:
        tokenizer: a fast tokenizer.
        answer: what follows the prompt.
        leading_space: put a space between the colon and the answer.

    Returns:
        Token ids without special tokens; empty when the tokenizer drops every character.
    """
    text = f":{' ' if leading_space else ''}{answer}"
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return [
        token
        for token, (_, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        if end > 1
    ]


def label_tokens(tokenizer: Any, labels: Sequence[str], *, leading_space: bool = True) -> list[int]:
    """Chooses one token for every label, no two the same.

    The first token of the label where no label before took it, otherwise the next of its tokens that
    is free. Tokens of white space alone, such as T5's bare mark, and unknown tokens are passed over.

    Args:
        tokenizer: a fast tokenizer.
        labels: label words; the order decides who takes a shared token.
        leading_space: the label follows a space, as it does after a prompt.

    Returns:
        One token id per label, in the order of the labels.

    Raises:
        TaskError: no labels, a label twice, or a label whose tokens are all taken.

    Example:
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import PreTrainedTokenizerFast
        >>> core = Tokenizer(models.WordLevel({"good": 0, "bad": 1, ":": 2, "[U]": 3}, unk_token="[U]"))
        >>> core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        >>> label_tokens(PreTrainedTokenizerFast(tokenizer_object=core), ["bad", "good"])
        [1, 0]
    """
    if not labels or len(set(labels)) < len(labels):
        raise TaskError(f"Labels must be given and differ, got {list(labels)}; name each class once.")
    blank = {tokenizer.unk_token_id, *tokenizer.all_special_ids}
    firsts: list[int] = []
    for label in labels:
        tokens = answer_tokens(tokenizer, label, leading_space=leading_space)
        words = [token for token in tokens if token not in blank and tokenizer.decode([token]).strip()]
        free = [token for token in words if token not in firsts]
        if not free:
            others = [other for other, token in zip(labels, firsts, strict=False) if token in words]
            why = (
                f"shares every token with {', '.join(others)}"
                if others
                else "has no token in this vocabulary"
            )
            raise TaskError(f'The label "{label}" {why}; choose another word for it.')
        firsts.append(free[0])
    return firsts
