"""The cross-entropy method and CMA-ES find what they should, and keep to what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from umaf.errors import ConfigError, NumericalError
from umaf.search import Cma, CrossEntropy, cma_es, cross_entropy

GOAL = np.array([0.9, 0.1, 0.4])


def near(candidates):
    return [(-float(((one - GOAL) ** 2).sum()),) for one in candidates]


@pytest.mark.parametrize("search", [cross_entropy, cma_es])
def test_it_finds_the_goal_inside_the_range(search):
    found = search(near, [1 / 3] * 3)
    assert np.allclose(found.numbers, GOAL, atol=0.02)
    assert found.score == max(found.history) and list(found.history) == sorted(found.history)


@pytest.mark.parametrize("search", [cross_entropy, cma_es])
def test_a_goal_outside_gives_the_border(search):
    found = search(lambda many: [(float(one.sum()),) for one in many], [0.5, 0.5])
    assert np.allclose(found.numbers, 1.0, atol=0.02)


def test_the_defaults_are_those_of_the_paper():
    seen = []
    cross_entropy(lambda many: seen.append(many) or near(many), [1 / 3] * 3)
    assert len(seen) == 50 and all(len(many) == 32 for many in seen)
    assert CrossEntropy().elites == 6
    first = seen[0]
    assert np.array_equal(first[0], [1 / 3] * 3)  # the incumbent is scored too
    assert first.min() >= 0 and first.max() <= 1
    # Before clipping the deviation is half the range: a sixth of all draws lie above 1/3 + 0.5.
    assert 0.05 < (first > 1 / 3 + 0.5).mean() < 0.35


def test_the_second_part_breaks_ties_among_elites():
    """All accuracies are equal; only the likelihood can lead the search."""
    blind = cross_entropy(lambda many: [(1.0,) for _ in many], [0.5])
    led = cross_entropy(lambda many: [(1.0, -abs(float(one[0]) - 0.2)) for one in many], [0.5])
    assert abs(led.numbers[0] - 0.2) < 0.01
    assert abs(blind.numbers[0] - 0.2) > 0.05


def test_the_first_part_comes_first():
    found = cross_entropy(lambda many: [(float(one[0] > 0.7), -float(one[0])) for one in many], [0.5])
    assert 0.7 < found.numbers[0] < 0.75


def test_mean_and_best_are_two_results():
    """With a noisy score and a slow fit, the last mean lies nearer the goal than the luckiest draw."""
    apart = {"mean": 0.0, "best": 0.0}
    for result in apart:
        for seed in range(8):
            noise = np.random.default_rng(seed)
            settings = CrossEntropy(result=result, iterations=40, keep=0.8, seed=seed)

            def noisy(many, noise=noise):
                return [(score + 0.1 * noise.standard_normal(),) for (score,) in near(many)]

            apart[result] += np.abs(
                cross_entropy(noisy, [1 / 3] * 3, settings=settings).numbers - GOAL
            ).mean()
    assert apart["mean"] < 0.8 * apart["best"]


def test_the_same_seed_gives_the_same_numbers():
    one, same, other = (
        cross_entropy(near, [0.5] * 3, settings=CrossEntropy(iterations=3, seed=seed)).numbers
        for seed in (1, 1, 2)
    )
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_patience_stops_early_and_progress_is_told():
    told = []
    settings = CrossEntropy(patience=2)
    found = cross_entropy(
        lambda many: [(0.0,) for _ in many], [0.5], settings=settings, said=lambda *at: told.append(at)
    )
    assert len(found.history) == 3 and told == [(1, 50), (2, 50), (3, 50)]
    assert found.evaluated == 96


@pytest.mark.parametrize(
    "settings",
    [
        CrossEntropy(elites=0),
        CrossEntropy(elites=33),
        CrossEntropy(iterations=0),
        CrossEntropy(low=1.0, high=1.0),
        CrossEntropy(keep=1.0),
    ],
)
def test_settings_that_cannot_be(settings):
    with pytest.raises(ConfigError, match="A search was asked for with"):
        cross_entropy(near, [0.5], settings=settings)


def test_no_numbers_to_search_for():
    with pytest.raises(ConfigError, match="with 0 numbers"):
        cross_entropy(near, [])


def test_nan_stops_the_search():
    with pytest.raises(NumericalError, match="NaN"):
        cross_entropy(lambda many: [(float("nan"),)] * len(many), [0.5])


def test_a_missing_package_is_one_sentence(monkeypatch):
    def no_cmaes(name):
        raise ImportError(name)

    monkeypatch.setattr("umaf.search.cma.import_module", no_cmaes)
    with pytest.raises(ConfigError, match=r'pip install "umaf\[search\]"'):
        cma_es(near, [0.5])


def test_one_number_can_be_searched_by_cma_es():
    found = cma_es(
        lambda many: [(-abs(float(one[0]) - 0.6),) for one in many], [0.5], settings=Cma(iterations=20)
    )
    assert found.numbers.shape == (1,) and abs(found.numbers[0] - 0.6) < 0.05


def test_known_candidates_are_scored_first():
    """What a caller knows to be good is found at once, and takes the place of draws."""
    seen = []

    def score(candidates):
        seen.append(candidates.copy())
        return [(-float(abs(one - [0.9, 0.1]).sum()),) for one in candidates]

    quick = CrossEntropy(population=4, elites=1, iterations=1, spread=0.01)
    found = cross_entropy(score, [0.5, 0.5], settings=quick, known=[[0.9, 0.1], [0.2, 0.2]])
    assert found.numbers.tolist() == [0.9, 0.1] and found.evaluated == 4
    assert seen[0][0].tolist() == [0.5, 0.5] and seen[0][2].tolist() == [0.2, 0.2]
    many = cross_entropy(score, [0.5, 0.5], settings=quick, known=[[0.1, 0.1]] * 9)
    assert many.evaluated == 4 and seen[-1][0].tolist() == [0.5, 0.5]
