"""Fingerprints without a model, for tests of what is done with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from umaf.extraction import Fingerprint, FingerprintCard
from umaf.seeds import generator

CARD = FingerprintCard(
    model="made",
    base="base",
    architecture="llama",
    parameters=1000,
    layers=2,
    width=32,
    tokenizer="a" * 64,
    probes="b" * 64,
    probe_count=16,
    truncated=0,
    anchors="c" * 64,
    extractor="pca-made",
    normalisation="centred",
    depths=(0.5, 1.0),
    strength=0.3,
    unchanged=False,
    umaf="0",
)


def made(seed: int, **changes: Any) -> Fingerprint:
    """Draw a fingerprint of length 1 with coordinates `[2, 16, 8]`; `changes` amend its card."""
    draw = generator(seed, "made")
    vector = torch.randn(1, 512, generator=draw)
    coordinates = torch.randn(2, 16, 8, generator=draw)
    return Fingerprint(vector / vector.norm(), replace(CARD, model=f"made-{seed}", **changes), coordinates)
