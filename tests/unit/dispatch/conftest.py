"""A tiny base with experts made by hand."""

from __future__ import annotations

import pytest
import torch

from umaf import seeds
from umaf.dispatch.shelf import open_shelf
from umaf.experts.expert import Expert, identity_expert, new_card
from umaf.models import open_model


def make_expert(model, name, *, seed=0, spread=0.4, description=""):
    """An expert with random multipliers."""
    plain = identity_expert(model, name)
    draw = seeds.generator(seed, "hand-made", name)
    z = {key: 1 + spread * (2 * torch.rand(one.shape, generator=draw) - 1) for key, one in plain.z.items()}
    return Expert(name, z, new_card(model, list(z), description=description))


@pytest.fixture(scope="session")
def base(pico):
    return open_model(pico("llama"))


@pytest.fixture(scope="session")
def shelf(base):
    return open_shelf(base, [make_expert(base, name) for name in ("good", "bad", "kind")])
