"""Graded tasks: right answers, sides that never meet, and a plan that covers them all."""

from __future__ import annotations

import re
from importlib import import_module

import pytest

from umaf.errors import TaskError
from umaf.experts.rewards import RIGHT, judge
from umaf.tasks.door import list_tasks, load_task
from umaf.tasks.graded import GRADED, lessons_of, part_of_plan, reward_of
from umaf.tasks.graded.lexicon import KINDS, MOODS, NAMES, THINGS
from umaf.tasks.graded.programs import lists
from umaf.tasks.graded.sides import SIDES, Graded, make, own, side_of
from umaf.tasks.graded.stories import LESS, MORE, pairs
from umaf.tasks.task import Example

SPLITS = ("train", "validation", "test")
PLAN = {**part_of_plan("train"), **part_of_plan("unseen")}


@pytest.fixture(scope="module", params=sorted(GRADED))
def task(request):
    return made(request.param)


def made(name, seed=0, sizes=(150, 40, 60)):
    """Make a task of fewer texts than it has by default, which takes less time."""
    module, function = GRADED[name].split(":")
    return getattr(import_module(module), function)(seed, sizes)


def test_the_plan_names_every_task_once():
    assert set(PLAN) == set(GRADED) and not set(part_of_plan("train")) & set(part_of_plan("unseen"))
    with pytest.raises(TaskError, match="train and unseen"):
        part_of_plan("test")


def test_texts_are_different_within_and_between_splits(task):
    texts = [one.text for split in SPLITS for one in getattr(task, split)]
    assert len(set(texts)) == len(texts)


def test_the_wanted_answer_earns_the_reward_and_another_does_not(task):
    examples = task.test[:12]
    with judge(reward_of(task.name), run_code=True) as judged:
        assert judged([one.answer for one in examples], examples) == [RIGHT] * len(examples)
        assert max(judged(["-1"] * len(examples), examples)) < RIGHT


def test_the_same_seed_gives_the_same_task_and_another_does_not(task):
    assert made(task.name, 0, (20, 5, 5)).train == task.train[:20]
    assert made(task.name, 1, (20, 5, 5)).train != task.train[:20]


def test_the_data_door_knows_them():
    assert set(GRADED) <= set(list_tasks()) and load_task("graded/moods", seed=2).labels[0] == "afraid"


@pytest.mark.parametrize(
    ("name", "words"), [("graded/choices", KINDS), ("graded/odd_one_out", KINDS), ("graded/moods", MOODS)]
)
def test_combinations_of_words_are_held_out(name, words):
    known = {word for group in words.values() for word in group}

    def combinations(examples):
        found = (frozenset(re.findall(r"\w+", one.text)) & known for one in examples)
        return {combination for combination in found if len(combination) > 1}

    task = made(name)
    assert not combinations(task.train) & combinations(task.test)


def test_an_event_has_other_numbers_than_in_the_lessons():
    for event in MORE + LESS:
        shown, asked = set(pairs("lessons", event)), set(pairs("test", event))
        assert shown and asked and not shown & asked


def test_no_frame_of_a_story_is_on_two_sides():
    def frames(examples):
        return {re.sub(r"[A-Z]\w+|\d+", "_", one.text) for one in examples}

    task = made("graded/stories", sizes=(300, 100, 200))
    plain = {thing: "_" for thing in THINGS}

    def bare(examples):
        return {
            " ".join(plain.get(word.strip("."), word) for word in text.split()) for text in frames(examples)
        }

    assert not bare(task.train) & bare(task.test) and not bare(task.validation) & bare(task.test)


def test_lessons_are_in_no_split(task):
    _, shown = lessons_of(task.name, count=24)
    # Of programs there are too few to keep practice apart too.
    apart = ("validation", "test") if task.train[0].tests else SPLITS
    texts = {one.text for split in apart for one in getattr(task, split)}
    assert not {one.text for one in shown} & texts


def test_stories_come_to_their_number():
    for one in made("graded/stories").test:
        a, b = map(int, re.findall(r"\d+", one.text))
        assert int(one.answer) in (a + b, a - b)


def test_programs_are_held_out_whole():
    task = lists()
    assert not {one.answer for one in task.train} & {one.answer for one in task.test}


def test_every_side_has_names_enough():
    assert all(len(own(side, NAMES)) >= 2 for side in SIDES)
    assert {side_of("thing", number) for number in range(60)} == set(SIDES)


def test_too_many_texts_are_refused():
    one = Graded("one", "cue", lambda rng, side: Example("the same", "yes"))
    with pytest.raises(TaskError, match="made only 1"):
        make(one, 0, (2, 0, 0))
    with pytest.raises(TaskError, match="0 or more"):
        make(one, 0, (1, -1, 0))
