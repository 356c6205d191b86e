"""Programs of one expression, judged by running them (after the pattern of MBPP), and what an expression gives."""

from __future__ import annotations

import functools
import random

from umaf.tasks.graded.sides import SIZES, Graded, Sizes, make, side_of
from umaf.tasks.task import Example, Task

GIVEN_LISTS = ("[4, 1, 7, 2, 9, 5]", "[8, 3, 5, 6, 1, 7, 2]", "[2, 9, 4, 4, 1, 6]")
GIVEN_WORDS = ("'garden'", "'Table'", "'windows'")
ASKED = ("write {}", "give {}", "return {}", "compute {}", "find {}", "show {}")
# Phrases of one operation, and its expression around the part {p}.
LIST_WHATS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("the sum of", "the total of"), "sum({p})"),
    (("the largest of", "the maximum of"), "max({p})"),
    (("the smallest of", "the minimum of"), "min({p})"),
    (("the length of", "the count of"), "len({p})"),
    (("the reverse of", "backwards"), "{p}[::-1]"),
    (("the sorted order of", "in order"), "sorted({p})"),
)
LIST_PARTS: tuple[tuple[str, str], ...] = (
    ("x", "x"),
    ("the first {n} items of x", "x[:{n}]"),
    ("the last {n} items of x", "x[-{n}:]"),
    ("x without the first {n}", "x[{n}:]"),
    ("every second item of x", "x[::2]"),
)
WORD_WHATS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("the capitals of", "in capitals"), "{p}.upper()"),
    (("the small letters of", "in small letters"), "{p}.lower()"),
    (("the length of", "the count of"), "len({p})"),
    (("the reverse of", "backwards"), "{p}[::-1]"),
    (("twice", "the double of"), "{p} * 2"),
)
WORD_PARTS: tuple[tuple[str, str], ...] = (
    ("s", "s"),
    ("the first {n} letters of s", "s[:{n}]"),
    ("the last {n} letters of s", "s[-{n}:]"),
    ("s without the first {n}", "s[{n}:]"),
    ("every second letter of s", "s[::2]"),
)
Whats = tuple[tuple[tuple[str, ...], str], ...]


def described(
    rng: random.Random, side: str, whats: Whats, parts: tuple[tuple[str, str], ...]
) -> tuple[str, str]:
    """Draw a description and its expression; operation, part and number together belong to the side.

    There are about a hundred of them, and a base is shown few, so practice has those of the lessons too.
    """
    own = ("practice", "lessons") if side == "practice" else (side,)
    while True:
        phrases, form = rng.choice(whats)
        words, part = rng.choice(parts)
        number = rng.randint(1, 5)
        if side_of("program", form, part, number if "{n}" in part else 0) in own:
            break
    phrase, ask = rng.choice(phrases), rng.choice(ASKED)
    words, part = words.format(n=number), part.format(n=number)
    # "backwards" and "in capitals" stand behind what they change.
    text = f"{phrase} {words}" if phrase.endswith(" of") or phrase == "twice" else f"{words} {phrase}"
    return ask.format(text), form.format(p=part)


@functools.cache
def tests_of(expression: str, variable: str) -> tuple[str, ...]:
    """Write the tests of an expression: its value on every example input.

    Example:
        >>> tests_of("len(x)", "x")[:2]
        ('f = lambda x: ({answer})', 'assert f([4, 1, 7, 2, 9, 5]) == 6')
    """
    checks = []
    for given in GIVEN_LISTS if variable == "x" else GIVEN_WORDS:
        # The expressions are this module's own.
        value = eval(expression, {"__builtins__": _SAFE}, {variable: eval(given)})
        checks.append(f"assert f({given}) == {value!r}")
    return (f"f = lambda {variable}: ({{answer}})", *checks)


_SAFE = {"sum": sum, "max": max, "min": min, "len": len, "sorted": sorted}


def _lists(rng: random.Random, side: str) -> Example:
    text, expression = described(rng, side, LIST_WHATS, LIST_PARTS)
    return Example(text, expression, tests_of(expression, "x"))


def _strings(rng: random.Random, side: str) -> Example:
    text, expression = described(rng, side, WORD_WHATS, WORD_PARTS)
    return Example(text, expression, tests_of(expression, "s"))


def _outputs(rng: random.Random, side: str) -> Example:
    while True:
        numbers = [rng.randint(1, 9) for _ in range(rng.randint(2, 4))]
        expression = rng.choice(
            ("sum(x)", "max(x)", "min(x)", "len(x)", "x[0]", "x[-1]", "max(x[:2])", "min(x[1:])")
        )
        if side_of("output", expression, *numbers) == side:
            break
    value = eval(expression, {"__builtins__": _SAFE}, {"x": numbers})
    return Example(f"x = {numbers}. what is {expression}?", str(value))


LISTS_TASK = Graded("lists", "code", _lists)
STRINGS_TASK = Graded("strings", "code", _strings)
OUTPUTS_TASK = Graded("outputs", "answer", _outputs)


def lists(seed: int = 0, sizes: Sizes = (600, 60, 150)) -> Task:
    """Make the task: what to do with a list x -> a Python expression that does it, judged by tests.

    Example:
        >>> lists(sizes=(4, 2, 2)).train[0].tests[0]
        'f = lambda x: ({answer})'
    """
    return make(LISTS_TASK, seed, sizes)


def strings(seed: int = 0, sizes: Sizes = (400, 60, 150)) -> Task:
    """Make the task: what to do with a string s -> a Python expression that does it, judged by tests."""
    return make(STRINGS_TASK, seed, sizes)


def outputs(seed: int = 0, sizes: Sizes = SIZES) -> Task:
    """Make the task: a short list and an expression -> the number it gives."""
    return make(OUTPUTS_TASK, seed, sizes)
