"""Arithmetic stories: one step (after the pattern of SVAMP), two steps, and one step with answers to choose from."""

from __future__ import annotations

import random
from dataclasses import dataclass

from umaf.tasks.graded.lexicon import NAMES, THINGS
from umaf.tasks.graded.sides import SIZES, Graded, Sizes, make, own, side_of
from umaf.tasks.task import Example, Task

LARGEST = 9
OPENINGS = (
    "{name} has {a} {things}",
    "{name} finds {a} {things}",
    "there are {a} {things} in a box",
    "{name} buys {a} {things}",
    "there are {a} {things} on the table",
    "{name} keeps {a} {things}",
)
MORE = (
    "gets {b} more",
    "buys {b} more",
    "finds {b} more",
    "{friend} brings {b} more",
    "{friend} adds {b}",
    "then {b} more come",
)
LESS = (
    "gives away {b}",
    "loses {b}",
    "sells {b}",
    "{friend} takes {b}",
    "then {b} are gone",
    "{friend} breaks {b}",
)
QUESTIONS = ("how many {things} are there now?", "how many {things} now?", "how many is that?")


@dataclass(frozen=True)
class Story:
    """A story with its number.

    Attributes:
        text: the story and its question.
        number: what it comes to.
        wrong: the number that the opposite operation gives.
    """

    text: str
    number: int
    wrong: int


def pairs(side: str, event: str) -> list[tuple[int, int]]:
    """List the pairs of numbers, 1 to 9, that an event has; what is taken is never more than what is there.

    Single-digit pairs are few: an event has some in the lessons, and all others in practice, validation and test, whose
    stories differ in frames, names and things.

    Example:
        >>> set(pairs("lessons", "loses {b}")) & set(pairs("test", "loses {b}"))
        set()
    """
    numbers = range(1, LARGEST + 1)
    plus, lesson = event in MORE, side == "lessons"
    return [
        (a, b)
        for a in numbers[1:]
        for b in numbers
        if (plus or b <= a) and (side_of("told", event, a, b) == "lessons") == lesson
    ]


def events(opening: str, plus: bool) -> list[str]:
    """List what can happen after an opening: without a person in it, somebody must be named.

    Example:
        >>> events("there are {a} {things} in a box", plus=False)
        ['{friend} takes {b}', 'then {b} are gone', '{friend} breaks {b}']
    """
    told = MORE if plus else LESS
    return [event for event in told if "{name}" in opening or event.startswith(("{friend}", "then"))]


def story(rng: random.Random, side: str) -> Story:
    """Draw a story of one step; the frame (opening, event, question) belongs to the side too."""
    plus = rng.random() < 0.5
    while True:
        opening, question = rng.choice(OPENINGS), rng.choice(QUESTIONS)
        event = rng.choice(events(opening, plus))
        if side_of("frame", opening, event, question) == side:
            break
    a, b = rng.choice(pairs(side, event))
    text = f"{opening} and {event}. {question}".format(a=a, b=b, **_people(rng, side))
    return Story(text, a + b if plus else a - b, abs(a - b) if plus else a + b)


def _people(rng: random.Random, side: str) -> dict[str, str]:
    name, friend = rng.sample(own(side, NAMES), 2)
    return {"name": name, "friend": friend, "things": rng.choice(own(side, THINGS))}


def _one_step(rng: random.Random, side: str) -> Example:
    told = story(rng, side)
    return Example(told.text, str(told.number))


def _two_steps(rng: random.Random, side: str) -> Example:
    while True:
        signs = [rng.random() < 0.5 for _ in range(2)]
        opening = rng.choice(OPENINGS)
        told = [rng.choice(events(opening, plus)) for plus in signs]
        a, b, c = (rng.randint(2, 9) for _ in range(3))
        between = a + b if signs[0] else a - b
        total = between + c if signs[1] else between - c
        if min(between, total) >= 0 and side_of("two steps", a, b, c, *told) == side:
            break
    people = _people(rng, side)
    first, second = (event.format(b=number, **people) for event, number in zip(told, (b, c), strict=True))
    text = f"{opening.format(a=a, **people)}, {first} and {second}. {QUESTIONS[0].format(**people)}"
    return Example(text, str(total))


def _story_choice(rng: random.Random, side: str) -> Example:
    told = story(rng, side)
    near = [told.wrong, told.number + 1, told.number + 2, told.number + 10]
    others = [number for number in dict.fromkeys(near) if number != told.number][:2]
    one, two, three = rng.sample([told.number, *others], 3)
    return Example(f"{told.text} {one}, {two} or {three}?", str(told.number))


STORIES_TASK = Graded("stories", "answer", _one_step)
TWO_STEPS_TASK = Graded("two_steps", "answer", _two_steps)
STORY_CHOICE_TASK = Graded("story_choice", "choice", _story_choice)


def stories(seed: int = 0, sizes: Sizes = (3000, 200, 600)) -> Task:
    """Make the task: story of one addition or subtraction -> its number.

    Example:
        >>> stories(sizes=(4, 2, 2)).cue
        'answer'
    """
    return make(STORIES_TASK, seed, sizes)


def two_steps(seed: int = 0, sizes: Sizes = SIZES) -> Task:
    """Make the task: story of two steps -> its number."""
    return make(TWO_STEPS_TASK, seed, sizes)


def story_choice(seed: int = 0, sizes: Sizes = (3000, 200, 600)) -> Task:
    """Make the task: story of one step with three numbers -> the right one."""
    return make(STORY_CHOICE_TASK, seed, sizes)
