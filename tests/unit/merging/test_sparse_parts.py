"""The parts of sparse methods: what is dropped by chance is right on average, and nothing given is changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.reference.sparse import row_chances
from umaf.errors import ConfigError
from umaf.merging import chance, parts
from umaf.merging.methods import della as della_room
from umaf.merging.methods.dare import dare_linear, dare_ties
from umaf.merging.methods.della import chances, della, della_linear, drop_by_rank
from umaf.merging.registry import METHODS, method_of

NAMES = [
    "ties", "dare_linear", "dare_ties", "della", "della_linear", "breadcrumbs", "breadcrumbs_ties", "sce", "varm",
    "pcb", "consensus_ta", "consensus_ties", "emr_unified",
]  # fmt: skip


def generator(seed=0):
    return np.random.Generator(np.random.SFC64(seed))


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 5), (2, 1), (4, 2, 3, 5), (3,), (2, 0), (2, 0, 4)])
def test_shape_dtype_inputs_and_repetition(name, shape):
    stack = normal(*shape)
    before = stack.clone()
    function = METHODS.get(name)
    out = function(stack)
    assert out.shape == stack.shape[1:] and out.dtype == torch.float32
    assert torch.equal(stack, before)
    assert torch.isfinite(out).all()
    assert torch.equal(out, function(stack))
    assert not function(torch.zeros(shape)).any()


@pytest.mark.parametrize("name", NAMES)
def test_views_are_merged_like_their_copies(name):
    stack = normal(3, 6, 10).transpose(1, 2)
    function = METHODS.get(name)
    assert torch.equal(function(stack), function(stack.contiguous()))


@pytest.mark.parametrize("name", NAMES)
def test_another_order_of_models_is_the_same_merge_or_is_declared(name):
    stack = normal(4, 6, 10)
    method = method_of(name)
    assert method.needs.order_matters == method.needs.random
    if not method.needs.order_matters:
        torch.testing.assert_close(
            method.function(stack.flip(0)), method.function(stack), rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("name", NAMES)
def test_one_model_and_copies_give_that_model_unless_declared(name):
    method = method_of(name)
    one = normal(1, 6, 10)
    if "single" not in method.needs.breaks:
        torch.testing.assert_close(method.function(one), one[0])
    if "same" not in method.needs.breaks:
        torch.testing.assert_close(method.function(one.expand(3, 6, 10)), one[0])


@pytest.mark.parametrize("name", ["ties", "dare_linear", "dare_ties", "della", "della_linear", "breadcrumbs"])
def test_one_model_of_which_all_is_kept_gives_that_model(name):
    one = normal(1, 6, 10)
    options = {"gamma": 0.0} if name == "breadcrumbs" else {}
    torch.testing.assert_close(METHODS.get(name)(one, density=1.0, **options), one[0])


@pytest.mark.parametrize("name", NAMES)
def test_the_description_says_what_the_file_says(name):
    method = method_of(name)
    assert method.needs.base == "required" and not method.needs.matrices
    assert method.needs.scope == ("tensor" if name.startswith("della") else "element")
    assert method.needs.random == (name[:4] in {"dare", "dell"})
    assert method.source and method.summary


def test_trimming_by_a_threshold_keeps_what_equals_it():
    stack = torch.tensor([[1.0, -2.0, 2.0, 0.0], [1.0, -2.0, 2.0, 0.0]])
    cut = torch.tensor([2.0, 0.0])
    assert parts.trim(stack, cut).tolist() == [[0.0, -2.0, 2.0, 0.0], [1.0, -2.0, 2.0, 0.0]]
    assert not parts.trim(stack, torch.full((2,), torch.inf)).any()
    double = parts.trim(stack.double(), cut.double())
    assert double.dtype == torch.float64 and double.tolist() == [[0.0, -2.0, 2.0, 0.0], [1.0, -2.0, 2.0, 0.0]]


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_dare_is_right_on_average(density):
    delta = normal(1, 1000)
    many = delta.expand(4000, 1000)
    dropped = chance.drop(many, density, generator=generator())
    # The mean of 4000 draws, in its own standard errors, over 1000 entries.
    error = delta[0].abs() * ((1 - density) / density / 4000) ** 0.5
    z = (dropped.mean(0) - delta[0]) / error
    assert abs(float(z.mean())) < 0.13 and 0.9 < float(z.std()) < 1.1
    assert float((dropped != 0).float().mean()) == pytest.approx(density, abs=2e-3)
    slope = float((dropped.mean(0) @ delta[0]) / (delta[0] @ delta[0]))
    assert slope == pytest.approx(1, abs=4 * ((1 - density) / density / 4e6) ** 0.5)


def test_dare_rescales_by_the_chance_that_was_used():
    kept = chance.drop(torch.ones(1, 200_000), 1e-5, generator=generator()).unique().tolist()
    assert kept == [0.0, 65536.0]
    assert chance.ticks(1e-9) == 1 and chance.ticks(0.999999) == 65536


def test_each_model_loses_other_entries_and_the_seed_decides_which():
    stack = torch.ones(2, 10_000)
    one, again, other = (chance.drop(stack, 0.5, generator=generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert abs(float(((one[0] > 0) == (one[1] > 0)).float().mean()) - 0.5) < 0.02


def test_l1_keeps_the_sum_of_magnitudes():
    stack = normal(2, 40, 50)
    for dropped in (
        chance.drop(stack, [0.1, 0.5], generator=generator(), rescale="l1"),
        drop_by_rank(stack, [0.2, 0.5], epsilon=0.1, generator=generator(), rescale="l1"),
    ):
        assert dropped.count_nonzero() < stack.numel()
        torch.testing.assert_close(dropped.abs().sum((1, 2)), stack.abs().sum((1, 2)))
    assert not chance.drop(torch.zeros(1, 9), 0.5, rescale="l1").any()


def test_dare_linear_and_ties_combine_what_was_dropped():
    stack = normal(3, 5000)
    weight = [0.5, 1.0, 2.0]
    dropped = chance.drop(stack, 0.5, generator=generator())
    column = torch.tensor(weight)[:, None]
    linear = dare_linear(stack, weight=weight, density=0.5, generator=generator())
    torch.testing.assert_close(linear, (dropped * column).sum(0))
    mean = dare_linear(stack, weight=weight, density=0.5, normalize=True, generator=generator())
    torch.testing.assert_close(mean, linear / 3.5)
    signs = torch.where((dropped * column).sum(0) >= 0, 1.0, -1.0)
    agree = dropped.sign() == signs
    found = dare_ties(stack, weight=weight, density=0.5, generator=generator())
    torch.testing.assert_close(found, (dropped * column * agree).sum(0))
    found = dare_ties(stack, weight=weight, density=0.5, combine="mean", generator=generator())
    divisor = (column * agree).sum(0)
    torch.testing.assert_close(
        found, (dropped * column * agree).sum(0) / divisor.where(divisor != 0, torch.ones(()))
    )
    assert torch.equal(dare_linear(stack, density=1.0), parts.weighted_sum(stack, 1.0))


@pytest.mark.parametrize("shape", [(1, 6, 50), (1, 50), (1, 6, 1), (1, 3, 4, 5)])
@pytest.mark.parametrize("kind", ["normal", "grid"])
def test_della_keeps_by_rank_in_the_row(shape, kind):
    delta = normal(*shape)
    delta = delta if kind == "normal" else delta.mul(2).round()
    lines = delta.reshape(shape[1] if len(shape) > 2 else 1, -1).double().numpy()
    chance = np.concatenate([row_chances(row, 0.3, 0.1) for row in lines])
    draws = 4000
    kept, total = np.zeros(chance.size), np.zeros(chance.size)
    source = generator()
    nonzero = lines.ravel() != 0
    for _ in range(draws):
        one = drop_by_rank(delta, 0.3, epsilon=0.1, generator=source).double().numpy().ravel()
        kept += one != 0
        total += one
        factor = one[one != 0] / lines.ravel()[one != 0]
        np.testing.assert_allclose(factor, 1 / chance[one != 0], rtol=1e-3)
    error = np.sqrt(chance * (1 - chance) / draws)
    assert np.abs((kept / draws - chance) / error)[nonzero].max() < 5
    z = (total / draws - lines.ravel())[nonzero] / (np.abs(lines.ravel()) * error / chance)[nonzero]
    assert np.abs(z).max() < 5


def test_della_is_unbiased_where_matching_norms_is_not():
    # Large entries stay more often; one factor for all of them makes the merged delta too long.
    delta = normal(1, 200, 1000, seed=3)
    slopes = {}
    for rescale in ("unbiased", "l1"):
        found = della_linear(delta, density=0.3, epsilon=0.1, rescale=rescale, generator=generator(4))
        slopes[rescale] = float((found * delta[0]).sum() / delta[0].square().sum())
    assert slopes["unbiased"] == pytest.approx(1, abs=0.015)
    assert slopes["l1"] == pytest.approx(1.065, abs=0.015)


def test_ranking_is_exact_in_blocks_of_every_size(monkeypatch):
    for block in (1, 7, 64, 1 << 16):
        monkeypatch.setattr(della_room, "_BLOCK", block)
        lines = normal(9, 31).mul(4).round().numpy()
        order = della_room._by_magnitude(lines).reshape(lines.shape) - np.arange(9)[:, None] * 31
        assert np.array_equal(order, np.argsort(np.abs(lines), axis=1, kind="stable"))
        assert torch.isfinite(della(normal(3, 9, 31), density=0.5, epsilon=0.1)).all()


def test_della_elects_and_averages():
    stack = normal(3, 20, 30)
    weight = [0.5, 1.0, 2.0]
    dropped = drop_by_rank(stack, 0.7, generator=generator())
    column = torch.tensor(weight)[:, None, None]
    signs = torch.where((dropped * column).sum(0) >= 0, 1.0, -1.0)
    agree = dropped.sign() == signs
    divisor = (column * agree).sum(0)
    expected = (dropped * column * agree).sum(0) / divisor.where(divisor != 0, torch.ones(()))
    torch.testing.assert_close(della(stack, weight=weight, generator=generator()), expected)


@pytest.mark.parametrize(("density", "epsilon"), [(0.95, 0.07), (0.05, 0.07), (0.5, 0.5)])
def test_chances_outside_the_interval_are_refused(density, epsilon):
    with pytest.raises(ConfigError, match="choose epsilon"):
        chances(density, epsilon, 5)
    assert torch.equal(della_linear(torch.ones(1, 2, 2), density=1.0, epsilon=0.3), torch.ones(2, 2))


def test_a_number_for_each_model_or_a_sentence():
    assert parts.per_model(torch.tensor([1.0, 2.0]), 2) == [1.0, 2.0]
    assert parts.per_model(torch.tensor(3.0), 2) == [3.0, 3.0]
    with pytest.raises(ConfigError, match="3 models and 2 numbers"):
        parts.per_model([1.0, 2.0], 3)


@pytest.mark.parametrize("chance_of", [1, 255, 256, 257, 6554, 32_768, 65_535])
def test_entries_stay_with_the_chance_that_was_asked_for(chance_of):
    n = 1 << 22
    found = chance.stays(generator(3), n, chance_of)
    share = chance_of / 65_536
    assert abs(float(found.mean()) - share) < 5 * (share * (1 - share) / n) ** 0.5
    assert (found == chance.stays(generator(3), n, chance_of)).all()
