"""Means, arcs and model stock against fixed numbers of mergekit 0.1.5 (`make_mergekit_spherical.py` made them).

Where mergekit departs from the formula, a test says how far, and what is right.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.reference.make_mergekit_spherical import CASES
from umaf.merging.registry import method_of
from umaf.merging.running.apply import merge_tensors

FIXED = load_file(Path(__file__).with_name("mergekit_spherical.safetensors"))
DEPARTURES = {"slerp.opposite", "slerp.zero", "model_stock.away"}
"""Cases in which mergekit's numbers are not the formula's."""


def ours(name, dtype=torch.float32):
    """Merge a case here, from mergekit's own words."""
    method, models, options = CASES[name]
    options = dict(options)
    scale = options.pop("lambda", options.pop("scale", 1.0))
    based = method_of(method).needs.base != "none" and models[0] == "base" and name != "nuslerp.near"
    base = FIXED["base"].to(dtype) if based else None
    rows = [FIXED[model].to(dtype) for model in models[based:]]
    return merge_tensors(method, rows, base=base, scale=scale, **options)


@pytest.mark.parametrize("name", sorted(set(CASES) - DEPARTURES))
def test_mergekit(name):
    torch.testing.assert_close(ours(name), FIXED[f"out.{name}"], rtol=2e-6, atol=3e-6)


def test_where_mergekit_departs_opposite_directions():
    # It takes the chord, which all but vanishes; the arc goes round.
    base, other = FIXED["base"], FIXED["opposite"]
    torch.testing.assert_close(FIXED["out.slerp.opposite"], 0.7 * base + 0.3 * other, rtol=1e-5, atol=1e-5)
    merged = ours("slerp.opposite")
    assert float(merged.norm()) == pytest.approx(float(base.norm()), rel=0.02)
    torch.testing.assert_close(merged, ours_exactly(base, other, 0.3), rtol=0, atol=1e-3)


def ours_exactly(first, second, t):
    """Give the point of the arc in float64."""
    first, second = first.double(), second.double()
    angle = torch.arccos((first * second).sum() / first.norm() / second.norm())
    return ((torch.sin((1 - t) * angle) * first + torch.sin(t * angle) * second) / torch.sin(angle)).float()


def test_where_mergekit_departs_zeros():
    # It counts zeros as orthogonal: 0.89 of the base at t = 0.3; there is no arc, and the chord gives 0.7.
    base = FIXED["base"]
    torch.testing.assert_close(FIXED["out.slerp.zero"], base * torch.sin(torch.tensor(0.7 * torch.pi / 2)))
    torch.testing.assert_close(ours("slerp.zero"), 0.7 * base)


def test_where_mergekit_departs_negative_cosines():
    # Deltas that point apart make its share of the mean negative; here what they agree on is nothing.
    base = FIXED["base"]
    mean = sum(FIXED[f"away.{name}"] for name in ("one", "two", "three")) / 3 - base
    share = float(((FIXED["out.model_stock.away"] - base) * mean).sum() / (mean * mean).sum())
    assert share < -1
    assert torch.equal(ours("model_stock.away"), base)


@pytest.mark.parametrize("name", ["karcher", "multislerp", "nuslerp"])
def test_bfloat16_is_rounded_once(name):
    # mergekit calculates these in the dtype of the file, and is wrong by several roundings.
    method, models, options = CASES[name]
    exact = merge_tensors(method, [FIXED[model].bfloat16().float() for model in models], **options)
    assert torch.equal(ours(name, torch.bfloat16), exact.bfloat16())
