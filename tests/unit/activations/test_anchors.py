"""The anchors are the axes of the space: they must never change by accident."""

from __future__ import annotations

from umaf.activations import ANCHORS, ANCHORS_HASH
from umaf.files import hash_texts


def test_the_anchors_are_the_ones_every_fingerprint_so_far_was_made_with() -> None:
    assert ANCHORS_HASH == hash_texts(ANCHORS)
    assert ANCHORS_HASH == "86a4b895a83edb078e507080fcf6576e8bbf02c5f33625b4253f9acd27eeda33"


def test_there_are_256_short_different_plain_texts() -> None:
    assert len(ANCHORS) == len(set(ANCHORS)) == 256
    assert all(text.isascii() and text == text.strip() and 0 < len(text) <= 100 for text in ANCHORS)
