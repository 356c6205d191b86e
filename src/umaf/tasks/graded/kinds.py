"""Text to label: the kind of thing a sentence is about, and the mood of the one it tells of."""

from __future__ import annotations

import random

from umaf.tasks.graded.lexicon import KINDS, MOODS, NAMES
from umaf.tasks.graded.sides import Graded, Sizes, make, own, side_of
from umaf.tasks.task import Example, Task

ABOUT = {
    "train": (
        "{name} thought about the {one} and the {two}", "{name} talked about {one} and {two}",
        "the book tells of {one} and {two}", "a picture of {one}, painted by {name}", "{name} drew the {one}",
    ),
    "validation": ("{name} told us about {one} and {two}", "{name} painted the {two}"),
    "test": ("{name} wrote about the {one}", "a song of {one} and {two}", "we talked with {name} about {two}"),
}  # fmt: skip
FEELING = {
    "train": (
        "{name} was {one} all day", "{name} felt {one} and {two}", "{one} again, {name} went home",
        "{name} looked {one}",
    ),
    "validation": ("{name} went home, {one} and {two}", "that day {name} was {one}"),
    "test": ("all day {name} looked {one}", "{name} was {two}, even {one}"),
}  # fmt: skip


def _drawn(
    rng: random.Random, side: str, words: dict[str, tuple[str, ...]], texts: tuple[str, ...]
) -> Example:
    while True:
        label = rng.choice(sorted(words))
        one, two = rng.sample(words[label], 2)
        if side_of("pair of words", *sorted((one, two))) == side:
            break
    return Example(rng.choice(texts).format(name=rng.choice(own(side, NAMES)), one=one, two=two), label)


def kinds(seed: int = 0, sizes: Sizes = (3000, 150, 400)) -> Task:
    """Make the task: sentence -> the kind of thing it is about.

    Example:
        >>> kinds(sizes=(4, 2, 2)).labels[:2]
        ('animal', 'drink')
    """
    draw = lambda rng, side: _drawn(rng, side, KINDS, ABOUT[side])  # noqa: E731
    return make(Graded("kinds", "kind", draw, tuple(sorted(KINDS))), seed, sizes)


def moods(seed: int = 0, sizes: Sizes = (1000, 100, 240)) -> Task:
    """Make the task: sentence -> the mood of the one it tells of."""
    draw = lambda rng, side: _drawn(rng, side, MOODS, FEELING[side])  # noqa: E731
    return make(Graded("moods", "mood", draw, tuple(sorted(MOODS))), seed, sizes)
