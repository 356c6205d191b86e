"""Tokens of two tokenizers meet where they have read the same characters."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import WORDS
from umaf.activations.alignment import AFTER, align, token_ends
from umaf.models.tokenizer import byte_tokenizer, open_tokenizer

ENDS = st.lists(st.integers(0, 12), max_size=12).map(sorted)
TEXTS = st.lists(st.sampled_from([*WORDS, "zq", "Xy,", "42.", "é", "—"]), min_size=1, max_size=9).map(
    " ".join
)
FAMILIES = ("bert", "llama", "gpt2", "t5")


@pytest.fixture(scope="module")
def tokenizers(pico):
    return {name: open_tokenizer(str(pico(name))) for name in FAMILIES} | {"bytes": byte_tokenizer()}


@given(ENDS, ENDS)
def test_the_last_source_token_that_ends_at_or_before(source: list[int], target: list[int]) -> None:
    found = align(source, target)
    if source == target:
        assert found == list(range(len(target)))
    else:
        assert found == [max((i for i, end in enumerate(source) if end <= own), default=-1) for own in target]


@settings(max_examples=40, deadline=None)
@given(text=TEXTS)
def test_every_pair_of_tokenizers(tokenizers, text: str) -> None:
    ends = {}
    for name, tokenizer in tokenizers.items():
        ids = tokenizer(text)["input_ids"]
        (ends[name],) = token_ends(tokenizer, [text], [ids])
        assert len(ends[name]) == len(ids) and ends[name] == sorted(ends[name])
        ordinary = [end for end in ends[name] if end != AFTER]
        assert max(ordinary) == len(text)
    for source in ends.values():
        for target in ends.values():
            for own, partner in zip(target, align(source, target), strict=True):
                assert partner == -1 or source[partner] <= own
                assert partner + 1 == len(source) or source[partner + 1] >= own
        assert align(source, source) == list(range(len(source)))


def test_special_tokens_meet_their_like(tokenizers) -> None:
    text = "the film was good"
    ends = {}
    for name, tokenizer in tokenizers.items():
        (ends[name],) = token_ends(tokenizer, [text], [tokenizer(text)["input_ids"]])
    assert ends["bert"] == [0, 3, 8, 12, 17, AFTER]
    assert ends["llama"] == [0, 3, 8, 12, 17]
    assert ends["t5"] == [3, 8, 12, 17, AFTER]
    assert align(ends["bert"], ends["llama"]) == [0, 1, 2, 3, 4]
    assert align(ends["t5"], ends["bert"]) == [-1, 0, 1, 2, 3, 4], (
        "nothing has read as little as the first token"
    )
    assert align(ends["llama"], ends["t5"]) == [1, 2, 3, 4, 4], "behind the text, everything has been read"


@pytest.mark.parametrize(
    ("row", "expected"),
    [([97, 98, 99], [1, 2, 3]), ([97, 98, 101, 102], [1, 2, 5, 6]), ([], [])],
)
def test_cut_rows_keep_their_characters(row: list[int], expected: list[int]) -> None:
    assert token_ends(byte_tokenizer(), ["abcdef"], [row]) == [expected]
