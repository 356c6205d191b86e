"""The route solve on a target that is the source in rotated coordinates: a known update arrives as what it does.

The update itself, weight by weight, is what `residual_shift` recovers (tests/reference/test_rotated_target.py); the
route sees answers alone, so what it must recover is the answers, on texts that it never saw.
"""

from __future__ import annotations

import copy
import random
from dataclasses import replace

import pytest
import torch

from tests.texts import CUE, LABELS
from umaf.adapters import attach, lora_modules, weight_of
from umaf.generation.sources import Source
from umaf.models import bare, open_model
from umaf.pipeline import transfer
from umaf.readout import label_scores
from umaf.seeds import generator

WORDS = "the film was good and music bad kind doctor wrote a letter about small town rain fell on hills joy".split()


def texts(count):
    draw = random.Random(3)
    return tuple(dict.fromkeys(" ".join(draw.choices(WORDS, k=draw.randint(5, 9))) for _ in range(count)))


def noise(*shape, name):
    return torch.randn(*shape, generator=generator(0, "rotated", name))


@pytest.fixture(scope="module")
def models(pico):
    """Base, expert with a known dW of rank 3 in its writers, and the base in rotated coordinates."""
    base = open_model(pico("llama"))
    expert, target = (replace(base, net=copy.deepcopy(bare(base.net))) for _ in range(2))
    turn = torch.linalg.qr(noise(base.width, base.width, name="turn")).Q
    with torch.no_grad():
        for name in lora_modules(base):
            if name.endswith("down_proj"):
                weight = weight_of(expert, name)
                delta = noise(weight.shape[0], 3, name=f"b {name}") @ noise(
                    3, weight.shape[1], name=f"a {name}"
                )
                weight.add_(1.0 * weight.norm() / delta.norm() * delta)
        for name, parameter in target.net.named_parameters():
            if "norm" not in name:  # the norms' weights are ones
                writes = name.endswith(("o_proj.weight", "down_proj.weight"))
                parameter.copy_(turn.T @ parameter if writes else parameter @ turn)
    return base, expert, target


def test_the_known_update_arrives_in_the_rotated_copy(models):
    base, expert, target = models
    every = texts(230)
    probes, new = every[:160], every[160:]
    wanted, before, same = (
        label_scores(model, new, LABELS, CUE).exp()[:, 0] for model in (expert, target, base)
    )
    assert (same - before).abs().max() < 1e-4, "the target is the base, written otherwise"
    assert (wanted - before).abs().mean() > 0.04, "the update does something"
    done = transfer([Source(expert, probes, CUE, LABELS, base=base)], target, rank=8, route="solve")
    after = label_scores(attach(target, done.factors), new, LABELS, CUE).exp()[:, 0]
    unexplained = (after - wanted).square().mean() / (before - wanted).square().mean()
    assert unexplained < 0.25, float(unexplained)
