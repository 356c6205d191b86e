"""Function: the larger of the two numbers in the sentence; each side has its own numbers."""

from __future__ import annotations

import re

from umaf.tasks.generated.grammar import Grammar, Side, Sizes, labelled, make
from umaf.tasks.generated.lexicon import seen, unseen
from umaf.tasks.task import Task

NUMBERS = range(10, 100)
UNSEEN_RESTS = (2, 5)  # numbers with these rests by 7 are only in the test


def _numbers(unseen_side: bool) -> tuple[str, ...]:
    return tuple(str(n) for n in NUMBERS if (n % 7 in UNSEEN_RESTS) == unseen_side)


def _larger(text: str) -> str:
    return str(max(int(number) for number in re.findall(r"\d+", text)))


SEEN = Side(
    {**seen("name", "thing", "place"), "number": _numbers(False)},
    labelled(
        "",
        "{name} has {number1} {thing1.1} and {number2} {thing2.1}",
        "there are {number1} {thing.1} here and {number2} in the {place}",
        "{number1} {thing.1} for {name1} or {number2} for {name2}",
        "{name} wanted {number1} but got {number2}",
        "from {number1} to {number2} with {name}",
    ),
)

UNSEEN = Side(
    {**unseen("name", "thing", "place"), "number": _numbers(True)},
    labelled(
        "",
        "{number1} people came, {number2} left, says {name}",
        "{name} paid {number1} coins for the {thing.0} and {number2} at the {place}",
        "in the {place} I counted {number1} {thing1.1}, then {number2} {thing2.1}",
        "was it {number1} or {number2}, {name}",
        "page {number1} and page {number2} are missing",
    ),
)

GRAMMAR = Grammar("larger", "larger", (), SEEN, UNSEEN, _larger)


def larger(seed: int = 0, sizes: Sizes = (1000, 200, 400)) -> Task:
    """Make the task: sentence -> the larger of its two numbers.

    Args:
        seed: the same seed gives the same task.
        sizes: how many train, validation and test examples.

    Raises:
        TaskError: more texts were asked for than the grammar can make.

    Example:
        >>> task = larger(sizes=(20, 4, 8))
        >>> len(task.test), task.kind
        (8, 'function')
    """
    return make(GRAMMAR, seed, sizes)
