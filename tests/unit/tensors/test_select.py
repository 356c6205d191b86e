"""The k-th largest entry: exact for any shape of data, whatever the sample says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from umaf.errors import NumericalError
from umaf.tensors import select
from umaf.tensors.select import kth_largest, kth_largest_of


def pieces(rows, size):
    return lambda: iter(rows.split(size, 1))


def sorted_ranks(rows, ranks):
    ordered = rows.double().sort(1, descending=True).values
    return torch.stack([ordered[i, torch.tensor(ranks) - 1] for i in range(len(rows))])


@pytest.fixture
def tight(monkeypatch):
    """A sample of few entries and room for few, so that every branch is taken by small data."""
    monkeypatch.setattr(select, "_SAMPLE", 64)
    monkeypatch.setattr(select, "_ROOM", 100)
    monkeypatch.setattr(select, "_BINS", 8)
    monkeypatch.setattr(select, "_PIECE", 333)


MAKERS = {
    "normal": lambda g: torch.randn(2, 5000, generator=g),
    "magnitudes": lambda g: torch.randn(2, 5000, generator=g).abs(),
    "rounded": lambda g: torch.randn(2, 5000, generator=g).mul(3).round(),
    "bfloat16": lambda g: torch.randn(2, 5000, generator=g).bfloat16().float(),
    "equal": lambda g: torch.full((2, 5000), 0.7),
    "zeros": lambda g: torch.zeros(2, 5000),
    "mostly zeros": lambda g: torch.randn(2, 5000, generator=g) * (torch.rand(2, 5000, generator=g) > 0.99),
    "sorted": lambda g: torch.arange(10000.0).reshape(2, 5000),
    "one block": lambda g: torch.cat([torch.zeros(2, 4900), torch.randn(2, 100, generator=g) * 1e6], 1),
    "scales": lambda g: torch.randn(2, 5000, generator=g).exp().pow(20),
    "double": lambda g: torch.randn(2, 5000, generator=g, dtype=torch.float64).exp().pow(9),
    "infinite": lambda g: torch.randn(2, 5000, generator=g).mul(1e39),
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("chunk", [97, 1000, 5000])
def test_the_rank_is_exact(kind, chunk, tight):
    rows = MAKERS[kind](torch.Generator().manual_seed(0))
    ranks = [1, 2, 7, 1000, 2500, 4999, 5000]
    found = kth_largest(pieces(rows, chunk), lambda n: [ranks] * 2)
    assert found.dtype == rows.dtype
    assert torch.equal(found.double(), sorted_ranks(rows, ranks))


def test_a_sample_that_misleads_costs_a_pass_and_no_more(tight):
    # Whatever is sampled (strides of 3) is 0; everything else is not.
    rows = torch.randn(1, 3**8, generator=torch.Generator().manual_seed(0))
    rows[:, ::3] = 0
    passes = 0

    def chunks():
        nonlocal passes
        passes += 1
        return iter(rows.split(500, 1))

    found = kth_largest(chunks, lambda n: [[1, 500, n - 500, n]])
    assert torch.equal(found.double(), sorted_ranks(rows, [1, 500, 3**8 - 500, 3**8]))
    assert passes < 12


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 1e-40, 3e38, 2.0]), min_size=1, max_size=300),
    st.data(),
)
def test_few_values_with_many_ties(values, data):
    row = torch.tensor([values])
    rank = data.draw(st.integers(1, len(values)))
    assert kth_largest_of(row, [[rank]])[0, 0] == sorted(values, reverse=True)[rank - 1]


def test_long_rows_take_two_passes():
    rows = torch.randn(2, 600_000, generator=torch.Generator().manual_seed(0)).abs()
    count = 0

    def chunks():
        nonlocal count
        count += 1
        return iter(rows.split(65_536, 1))

    found = kth_largest(chunks, lambda n: [[n // 5], [n // 100]])
    for row, value, rank in zip(rows.numpy(), found[:, 0], [120_000, 6_000], strict=True):
        assert np.partition(row, row.size - rank)[row.size - rank] == value
    assert count == 2


def test_ranks_outside_the_row():
    row = torch.tensor([[1.0, 2.0]])
    assert kth_largest_of(row, [[0, 3]]).tolist() == [[float("inf"), float("-inf")]]


def test_ranks_are_asked_for_after_a_whole_pass():
    seen = []

    def chunks():
        for part in torch.arange(10.0)[None].split(3, 1):
            seen.append(part.numel())
            yield part

    kth_largest(chunks, lambda n: [[sum(seen) - n + 1]])
    assert sum(seen) == 10


def test_half_precision_rows_are_compared_exactly():
    row = torch.randn(1, 100, generator=torch.Generator().manual_seed(0)).half()
    found = kth_largest_of(row, [[10]])
    assert found.dtype == torch.float32
    assert found[0, 0] == row.float().sort(descending=True).values[0, 9]


@pytest.mark.parametrize("size", [5, 5000])
def test_nan_has_no_rank(size, tight):
    row = torch.zeros(1, size)
    row[0, 1:] = torch.nan
    with pytest.raises(NumericalError, match="NaN"):
        kth_largest_of(row, [[size]])


@pytest.mark.parametrize("sample", ["fair", "large", "small", "one", "equal"])
def test_a_sample_only_says_where_to_look(sample):
    rows = torch.randn(2, 300_000, generator=torch.Generator().manual_seed(0))
    ordered = rows.sort(dim=1).values
    thin = {
        "fair": rows[:, ::7],
        "large": ordered[:, -4000:],
        "small": ordered[:, :4000],
        "one": rows[:, :1],
        "equal": torch.zeros(2, 4000),
    }[sample]
    some = select.Sampled(
        lambda: iter(rows.split(65_536, dim=1)), lambda: iter(thin.split(1024, dim=1)), 300_000
    )
    ranks = [0, 1, 2, 60_000, 150_000, 299_999, 300_000, 300_001]
    found = kth_largest(some, lambda n: [ranks, ranks[::-1]])
    expected = [float("inf"), *(ordered[0, -rank] for rank in ranks[1:-1]), -float("inf")]
    assert found[0].tolist() == [float(one) for one in expected]
    assert found[1, 1:-1].tolist() == [float(ordered[1, -rank]) for rank in ranks[-2:0:-1]]


def test_ranks_may_change_once_all_is_counted():
    rows = torch.arange(300_000.0)[None]
    seen = []

    def ranks(entries):
        seen.append(entries)
        return [[2 if len(seen) == 1 else 100_000]]

    some = select.Sampled(lambda: iter([rows]), lambda: iter([rows[:, ::5]]), 300_000)
    assert kth_largest(some, ranks).tolist() == [[200_000.0]] and set(seen) == {300_000}
