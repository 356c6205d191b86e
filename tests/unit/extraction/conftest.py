"""A base, an expert of it, and fingerprints without a model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from umaf.models import Model, open_model
from umaf.seeds import generator

PROBES = [
    f"{who} {what}"
    for who in ("the doctor", "rain", "a letter", "music")
    for what in ("was", "is", "may be", "fell")
]


@pytest.fixture
def probes() -> list[str]:
    """Sixteen texts, as few as are allowed."""
    return list(PROBES)


@pytest.fixture
def expert_of() -> Callable[[Model], Model]:
    """``expert_of(base)`` moves the base's weights a little, as a fine-tuning would."""

    def make(base: Model, *, name: str = "expert", by: float = 0.05) -> Model:
        net = copy.deepcopy(base.net)
        draw = generator(0, "expert", name)
        with torch.no_grad():
            for weight in net.parameters():
                weight += by * torch.randn(weight.shape, generator=draw)
        return replace(base, net=net, name=name)

    return make


@pytest.fixture
def llama(pico: Callable[[str], Path]) -> Model:
    """A tiny random LLaMA."""
    return open_model(pico("llama"))
