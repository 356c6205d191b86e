"""The figures of the adaptation benchmark, from cells whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.adapt_plan import SEEDS, TASKS, cells, settings_of
from benchmarks.adapt_summary import figures_of, gain, scores
from benchmarks.adapt_unseen import SOURCES, Cell
from benchmarks.adapt_unseen_figures import difference
from benchmarks.adapt_unseen_figures import figures_of as unseen_figures


def cell(right: float, bare: float, parameters: int = 10) -> dict:
    draw = lambda share: (np.arange(200) < 200 * share).tolist()  # noqa: E731
    return {"correct": draw(right), "base": draw(bare), "parameters": parameters, "cpu": 1.0, "curve": []}


@pytest.fixture
def known():
    """Experts gain 0.1 on every task and seed, but lose 0.2 on the last task; LoRAs gain 0.3 everywhere."""
    found = {}
    for seed in SEEDS:
        for task in TASKS:
            shift = -0.2 if task == TASKS[-1] else 0.1
            found["svf_rl", task, seed] = cell(0.5 + shift, 0.5, 7)
            found["lora_rl", task, seed] = cell(0.8, 0.5, 350)
    return found


def test_gains_are_paired_differences(known):
    figure = gain(known, "svf_rl", TASKS[0])
    assert figure is not None and figure.value == pytest.approx(0.1) and figure.n == 200 * len(SEEDS)
    assert 0 < figure.low < 0.1 < figure.high
    assert gain(known, "ia3_ntp", TASKS[0]) is None
    assert scores(known, "base", TASKS[0]) == [0.5] * len(SEEDS)


def test_the_headline_is_the_worst_task_and_not_the_mean(known):
    figures = figures_of(known)
    assert figures["gain.svf_rl_over_base.worst_task"].value == pytest.approx(-0.2)
    assert figures["gain.svf_rl_over_base.worst_task"].high < 0
    assert figures["gain.svf_rl_over_lora_rl"].value == pytest.approx((3 * -0.2 + -0.5) / 4)
    assert figures["params.svf_over_lora16"].value == pytest.approx(0.02)


def test_what_is_missing_gives_no_headline(known):
    del (
        known["svf_rl", TASKS[0], SEEDS[0]],
        known["svf_rl", TASKS[0], SEEDS[1]],
        known["svf_rl", TASKS[0], SEEDS[2]],
    )
    assert "gain.svf_rl_over_base.worst_task" not in figures_of(known)


def test_the_plan_has_every_cell_once():
    names = [one.name for one in cells()]
    assert len(set(names)) == len(names) == 5 * len(TASKS) * len(SEEDS)
    assert {settings_of(one).steps for one in cells()} == {60}


def unseen(**right: float) -> dict:
    return {
        "correct": {way: (np.arange(200) < 200 * share).tolist() for way, share in right.items()},
        "chosen": {},
    }


def test_a_choice_counts_as_what_was_chosen_and_draws_count_with_their_mean():
    cell = unseen(base=0.5, sums=0.4, lists=0.6, fewshot10=0.7, **{"fewshot10@1": 0.5})
    cell["chosen"] = {"shots10": "sums", "shots10@1": "lists"}
    cells = {(task, seed): cell for task in ("a", "b") for seed in SEEDS}
    over_base, over_best = (difference(cells, "fewshot10", other) for other in ("base", "shots10"))
    assert (
        over_base is not None
        and over_base.value == pytest.approx(0.1)
        and over_base.n == 200 * 2 * len(SEEDS)
    )
    assert over_best is not None and over_best.value == pytest.approx(0.1)
    assert difference(cells, "prompt", "base") is None


def test_ways_that_shots_decide_are_compared_on_the_same_shots():
    """A way that was measured on the first shots only is not set beside the mean over all shots."""
    cell = unseen(base=0.5, fewshot10=0.7, fewshot10_layers=0.6, **{"fewshot10@1": 0.1})
    cells = {("a", seed): cell for seed in SEEDS}
    layers, over_base = (
        difference(cells, *pair) for pair in (("fewshot10_layers", "fewshot10"), ("fewshot10", "base"))
    )
    assert layers is not None and layers.value == pytest.approx(-0.1)
    assert over_base is not None and over_base.value == pytest.approx(-0.1)


def test_hindsight_is_the_best_of_base_and_experts_on_the_test():
    alone = dict.fromkeys((task.partition("/")[2] for task in TASKS), 0.4)
    worse = unseen(base=0.5, fewshot10=0.5, **alone)
    better = unseen(base=0.5, fewshot10=0.5, **{**alone, "lists": 0.6})
    for one in (worse, better):
        one["chosen"]["shots10"], one["seconds"] = "lists", {}
    cells = {(task, seed): cell for task, cell in (("a", worse), ("b", better)) for seed in SEEDS}
    assert unseen_figures(cells)["gain.hindsight_over_base.unseen"].value == pytest.approx(0.05)
    assert "gain.oracle_over_base.unseen" not in unseen_figures(cells)


def test_every_stage_of_the_unseen_tasks_is_something_a_cell_does():
    assert all(callable(getattr(Cell, stage)) for stage in SOURCES)
    assert not set(SOURCES) & {"name", "seed", "task", "shelf", "reward", "adaptive", "test"}
