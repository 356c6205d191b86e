"""Ranks under a budget."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from umaf.errors import ConfigError
from umaf.tensors.allocate import allocate_ranks, rank_for_energy


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 8))
def test_equal_costs_are_shared_out_optimally(seed, count):
    rng = np.random.default_rng(seed)
    spectra = {name: torch.tensor(np.sort(rng.uniform(0.1, 3, size=3))[::-1].copy()) for name in "abc"}
    found = allocate_ranks(spectra, dict.fromkeys("abc", 7), budget=7 * count + 6)
    assert sum(found.values()) == count

    def kept(ranks):
        return sum(
            float(spectra[name][:rank].square().sum()) for name, rank in zip("abc", ranks, strict=True)
        )

    best = max(kept(ranks) for ranks in itertools.product(range(4), repeat=3) if sum(ranks) <= count)
    assert kept([found[name] for name in "abc"]) == pytest.approx(best)


def test_costs_count_and_what_does_not_fit_is_passed_over():
    spectra = {"wide": torch.tensor([3.0, 2.9]), "thin": torch.tensor([1.0, 0.5])}
    assert allocate_ranks(spectra, {"wide": 10, "thin": 1}, budget=12) == {"wide": 1, "thin": 2}
    assert allocate_ranks(spectra, {"wide": 10, "thin": 1}, budget=0) == {"wide": 0, "thin": 0}


def test_equal_items_go_by_name_and_zeros_are_never_taken():
    spectra = {"b": torch.tensor([1.0, 0.0]), "a": torch.tensor([1.0, 0.0])}
    assert allocate_ranks(spectra, {"a": 1, "b": 1}, budget=1) == {"b": 0, "a": 1}
    assert allocate_ranks(spectra, {"a": 1, "b": 1}, budget=9) == {"b": 1, "a": 1}


def test_budgets_and_costs_are_checked():
    with pytest.raises(ConfigError, match="negative"):
        allocate_ranks({}, {}, budget=-1)
    with pytest.raises(ConfigError, match="cost"):
        allocate_ranks({"a": torch.ones(1)}, {}, budget=1)


def test_the_rank_that_keeps_a_share():
    values = torch.tensor([2.0, 1.0, 1.0])
    assert [rank_for_energy(values, share) for share in (0.0, 0.5, 0.7, 0.9, 1.0)] == [0, 1, 2, 3, 3]
    assert rank_for_energy(torch.zeros(3), 0.5) == 0
