from __future__ import annotations

import math

import numpy as np
import pytest

from umaf.errors import NumericalError
from umaf.evaluation.metrics import accuracy, exact_match, macro_f1, matches
from umaf.evaluation.statistics import (
    Bootstrap,
    Interval,
    mean_interval,
    ratio_interval,
    recovery,
    recovery_interval,
)


def test_mean_interval_agrees_with_theory():
    random = np.random.default_rng(1)
    values = random.normal(3.0, 2.0, size=400)
    found = mean_interval(values)
    error = 1.96 * values.std() / math.sqrt(400)
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - error, abs=0.03)
    assert found.high == pytest.approx(values.mean() + error, abs=0.03)
    assert found.n == 400


def test_intervals_cover_the_truth_as_often_as_they_say():
    random = np.random.default_rng(2)
    drawn = [
        mean_interval(random.random(100) < 0.7, bootstrap=Bootstrap(resamples=400, seed=i))
        for i in range(300)
    ]
    covered = np.mean([one.low <= 0.7 <= one.high for one in drawn])
    assert 0.90 <= covered <= 0.985


def test_same_seed_same_interval_and_other_seed_another():
    values = np.random.default_rng(3).random(50)
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval(values).low != mean_interval(values, bootstrap=Bootstrap(seed=1)).low


def test_blocks_do_not_change_what_is_drawn(monkeypatch: pytest.MonkeyPatch):
    values = np.random.default_rng(3).random(50)
    whole = mean_interval(values)
    monkeypatch.setattr("umaf.evaluation.statistics._BLOCK", 1000)
    assert mean_interval(values) == whole


def test_clusters_widen_the_interval_when_groups_differ():
    values = np.repeat([0.1, 0.5, 0.9, 0.7, 0.3, 0.6], 50) + np.random.default_rng(4).normal(0, 0.01, 300)
    groups = [str(i // 50) for i in range(300)]
    alone, grouped = mean_interval(values), mean_interval(values, groups=groups)
    assert grouped.value == pytest.approx(alone.value)
    assert grouped.high - grouped.low > 4 * (alone.high - alone.low)
    assert grouped.n == 6


def test_pairing_cancels_what_two_lists_share():
    random = np.random.default_rng(5)
    hard = random.random(300) * 3 + 1
    found = ratio_interval(hard * 2, hard)
    assert (found.low, found.value, found.high) == pytest.approx((2.0, 2.0, 2.0))


def test_one_unit_says_nothing_about_the_spread():
    for found in (mean_interval([0.5]), mean_interval([0.1, 0.2], groups=["a", "a"])):
        assert math.isnan(found.low) and math.isnan(found.high) and found.n == 1


def test_recovery_needs_room_to_recover():
    assert recovery(0.8, 0.5, 0.9) == pytest.approx(0.75)
    assert recovery(0.4, 0.5, 0.9) == pytest.approx(-0.25)
    assert recovery(0.53, 0.50, 0.53) == pytest.approx(1.0)
    assert recovery(0.5, 0.5, 0.529) is None
    assert recovery(0.5, 0.6, 0.5) is None


def test_recovery_interval_is_paired_and_brackets_its_value():
    random = np.random.default_rng(6)
    ease = random.random(500)
    bare, adapted, oracle = ease < 0.4, ease < 0.75, ease < 0.9
    found = recovery_interval(adapted, bare, oracle)
    assert isinstance(found, Interval)
    assert found.low < found.value < found.high
    assert found.high - found.low < 0.12
    assert recovery_interval(bare, bare, bare) is None


def test_recovery_with_a_shaky_oracle_has_no_bounds():
    bare, oracle = [1, 0, 0, 1, 0, 0, 1, 0], [0, 1, 1, 0, 0, 1, 0, 0.3]
    found = recovery_interval(bare, bare, oracle)
    assert found is not None and found.value == 0.0
    assert math.isnan(found.low) and math.isnan(found.high)


@pytest.mark.parametrize(
    "call",
    [
        lambda: mean_interval([]),
        lambda: mean_interval([1.0, float("nan")]),
        lambda: mean_interval([[1.0]]),
        lambda: mean_interval([1.0, 2.0], groups=["a"]),
        lambda: ratio_interval([1.0], [1.0, 2.0]),
        lambda: ratio_interval([1.0], [0.0]),
        lambda: Bootstrap(confidence=95),
        lambda: matches(["a"], ["a", "b"]),
        lambda: matches([], []),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_sentence(call):
    with pytest.raises(NumericalError) as found:
        call()
    assert "\n" not in str(found.value) and str(found.value).endswith(".")


def test_metrics():
    assert accuracy([" good", "bad"], ["good", "good"]) == 0.5
    assert exact_match(["Paris"], ["paris"]) == 0.0
    assert exact_match(["Paris \n"], ["paris"], casefold=True) == 1.0


def test_macro_f1_agrees_with_scikit_learn():
    from sklearn.metrics import f1_score

    random = np.random.default_rng(7)
    for labels in ("ab", "abcd", "abcdefg"):
        right = random.choice(list(labels[:-1]), 60)
        said = random.choice(list(labels), 60)
        expected = f1_score(right, said, average="macro", zero_division=0)
        assert macro_f1(list(said), list(right)) == pytest.approx(expected)
