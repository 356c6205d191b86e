"""Text to label: the kind of thing a sentence is about, and the mood of the one it tells of."""

from __future__ import annotations

import random

from umaf.tasks.graded.lexicon import KINDS, MOODS, NAMES
from umaf.tasks.graded.sides import Graded, Sizes, make, own, side_of
from umaf.tasks.task import Example, Task

ABOUT = {
    "lessons": (
        "{name} thought about the {one} and the {two}",
        "{name} talked about {one} and {two}",
        "the book tells of {one} and {two}",
        "a picture of {one}, painted by {name}",
        "{name} drew the {one}",
    ),
    "practice": (
        "{name} wrote about the {one}",
        "a song of {one} and {two}",
        "we talked with {name} about {two}",
    ),
    "validation": ("{name} told us about {one} and {two}", "{name} painted the {two}"),
    "test": (
        "{name} read about the {two}",
        "stories of {one} and of {two}",
        "{name} remembers {two} and {one}",
    ),
}
FEELING = {
    "lessons": (
        "{name} was {one} all day",
        "{name} felt {one} and {two}",
        "{one} again, {name} went home",
        "{name} looked {one}",
    ),
    "practice": ("all day {name} looked {one}", "{name} was {two}, even {one}"),
    "validation": ("{name} went home, {one} and {two}", "that day {name} was {one}"),
    "test": ("{name} seemed {two} today", "{one} and {two}, {name} stayed in bed"),
}


def _drawn(
    rng: random.Random, side: str, words: dict[str, tuple[str, ...]], texts: tuple[str, ...]
) -> Example:
    while True:
        label = rng.choice(sorted(words))
        one, two = rng.sample(words[label], 2)
        if side_of("pair of words", *sorted((one, two))) == side:
            break
    return Example(rng.choice(texts).format(name=rng.choice(own(side, NAMES)), one=one, two=two), label)


def _kinds(rng: random.Random, side: str) -> Example:
    return _drawn(rng, side, KINDS, ABOUT[side])


def _moods(rng: random.Random, side: str) -> Example:
    return _drawn(rng, side, MOODS, FEELING[side])


KINDS_TASK = Graded("kinds", "kind", _kinds, tuple(sorted(KINDS)))
MOODS_TASK = Graded("moods", "mood", _moods, tuple(sorted(MOODS)))


def kinds(seed: int = 0, sizes: Sizes = (1000, 100, 300)) -> Task:
    """Make the task: sentence -> the kind of thing it is about.

    Example:
        >>> kinds(sizes=(4, 2, 2)).labels[:2]
        ('animal', 'drink')
    """
    return make(KINDS_TASK, seed, sizes)


def moods(seed: int = 0, sizes: Sizes = (300, 60, 150)) -> Task:
    """Make the task: sentence -> the mood of the one it tells of."""
    return make(MOODS_TASK, seed, sizes)
