"""Four sides of a graded task, each with its own phrases, names and combinations.

Lessons are what a base model is shown; practice is what experts are trained on (a task's train split); validation and
test are a task's other splits. So what experts practise is as new to the base as the test is.

A combination (the words of a question, an event with its numbers, an operation with what it is done to) belongs to one
side, by a hash of itself, so that no seed and no order moves it. Single words and numbers are few and recur.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from umaf.errors import TaskError
from umaf.seeds import derive
from umaf.tasks.task import Example, Task

Item = TypeVar("Item")
SIDES = ("lessons", "practice", "validation", "test")
_SHARES = ("lessons",) * 6 + ("validation",) + ("test",) * 2 + ("practice",) * 2
_PLACES = (
    *("lessons", "lessons", "validation", "practice", "lessons", "lessons", "practice", "test", "lessons"),
    *("practice", "lessons"),
)
# The stream of the lessons has a name of its own, which is part of what the base has read.
_STREAMS = {"lessons": "train"}
TRIES = 60
Sizes = tuple[int, int, int]
SIZES: Sizes = (3000, 300, 600)
Draw = Callable[[random.Random, str], Example]


@dataclass(frozen=True)
class Graded:
    """One graded task.

    Attributes:
        name: such as "stories"; the task is "graded/stories".
        cue: the word shown before the answer.
        draw: makes one example of a side from a random state.
        labels: the label words; () where the answer is free.
    """

    name: str
    cue: str
    draw: Draw
    labels: tuple[str, ...] = ()


def side_of(*what: object) -> str:
    """Say to which side a thing belongs: 6 of 11 to lessons, 2 each to practice and test, 1 validates.

    Example:
        >>> side_of("pair", 3, 4) == side_of("pair", 3, 4)
        True
    """
    return _SHARES[derive(0, "graded", *what) % len(_SHARES)]


def own(side: str, items: Sequence[Item]) -> list[Item]:
    """Keep the items of a list that belong to a side, by their places: every side gets its share of a long list.

    Example:
        >>> own("practice", list(range(11)))
        [3, 6, 9]
    """
    return [item for place, item in enumerate(items) if _PLACES[place % len(_PLACES)] == side]


def make(graded: Graded, seed: int, sizes: Sizes) -> Task:
    """Make the task: examples with different texts on each side.

    Args:
        graded: what to make.
        seed: the same seed gives the same task.
        sizes: how many train, validation and test examples.

    Raises:
        TaskError: a size is negative, or there are not so many different texts.
    """
    if min(sizes) < 0:
        raise TaskError(f"Task graded/{graded.name} was asked for {sizes} examples; sizes must be 0 or more.")
    train, validation, test = (
        _distinct(graded, side, count, seed) for side, count in zip(SIDES[1:], sizes, strict=True)
    )
    kind = "classification" if graded.labels else "function"
    source, licence = "made by umaf's own grammars", "Apache-2.0"
    name = f"graded/{graded.name}"
    return Task(name, kind, graded.labels, graded.cue, train, validation, test, source, licence)


def lessons(graded: Graded, seed: int, count: int) -> tuple[Example, ...]:
    """Draw what a base model is shown of a task; nothing of it is in any of the task's splits."""
    return _distinct(graded, "lessons", count, seed)


def _distinct(graded: Graded, side: str, count: int, seed: int) -> tuple[Example, ...]:
    rng = random.Random(derive(seed, "graded", graded.name, _STREAMS.get(side, side)))
    found: dict[str, Example] = {}
    for _ in range(TRIES * count):
        if len(found) == count:
            break
        example = graded.draw(rng, side)
        found.setdefault(example.text, example)
    if len(found) < count:
        raise TaskError(
            f"Task graded/{graded.name} was asked for {count} different {side} texts, but its grammar made only "
            f"{len(found)}; ask for fewer."
        )
    return tuple(found.values())
