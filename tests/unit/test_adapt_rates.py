"""What the search for rates says, from numbers whose answer is known."""

from __future__ import annotations

import pytest
import torch

from benchmarks.adapt_plan import SEEDS
from benchmarks.adapt_rates import RATES, SEED, TRIALS, common_share, difference, in_the_mean, walked
from umaf.experts.bound import bounded


def test_nothing_is_chosen_on_a_seed_that_is_reported():
    assert SEED not in SEEDS
    assert all(trial.settings().seed == SEED for trial in TRIALS)


def test_both_methods_get_as_many_rates_on_as_many_tasks():
    short = [(trial.method, trial.task, trial.rate) for trial in TRIALS if trial.steps == 60]
    for method, rates in RATES.items():
        assert {rate for name, _, rate in short if name == method} == set(rates)
    counts = [sum(name == method for name, _, _ in short) for method in RATES]
    assert counts[0] == counts[1] and len(set(short)) == len(short)


def test_what_experts_have_in_common_is_found_under_noise():
    draw = torch.Generator().manual_seed(0)
    learnt = torch.randn(4000, generator=draw) / 10
    noisy = [{"a": bounded(learnt + torch.randn(4000, generator=draw) / 10)} for _ in range(3)]
    assert common_share(noisy) == pytest.approx(0.5, abs=0.05)
    alone = [{"a": bounded(torch.randn(4000, generator=draw) / 10)} for _ in range(3)]
    assert common_share(alone) == pytest.approx(0.0, abs=0.05)


def test_the_mean_of_experts_and_its_sizes():
    experts = [{"a": torch.tensor([1.5, 0.5])}, {"a": torch.tensor([0.5, 0.5])}]
    assert in_the_mean(experts)["a"].tolist() == [1.0, 0.5]
    assert in_the_mean(experts, 0.5)["a"].tolist() == [1.0, 0.75]
    assert in_the_mean(experts, 0.0)["a"].tolist() == [1.0, 1.0]


def test_a_walk_of_equal_steps_goes_as_far_as_their_root():
    flat = TRIALS[0].settings().model_copy(update={"steps": 1, "rate": 0.03})
    assert walked(flat) == pytest.approx(0.03)


def test_tasks_weigh_the_same_however_many_texts_they_have():
    cells = [
        {"right": {"mean": [1.0] * 100, "whole": [0.0] * 100}},
        {"right": {"mean": [0.0] * 10, "whole": [0.0] * 10}},
    ]
    figure = difference(cells, "mean", "whole")
    assert figure.value == pytest.approx(0.5) and figure.n == 110
