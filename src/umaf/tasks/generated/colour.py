"""Function: the colour that the sentence names, among other adjectives."""

from __future__ import annotations

from umaf.tasks.generated.grammar import Grammar, Side, Sizes, make, words
from umaf.tasks.generated.lexicon import seen, unseen
from umaf.tasks.task import Task

SEEN = Side(
    {
        **seen("name", "thing", "place", "animal", "person"),
        "colour": words("red, blue, green, yellow, black, white, brown"),
        "look": words("old, heavy, small, broken, cheap, pretty, dirty, strange"),
    },
    (
        ("{colour}", "{name} found a {look} {colour} {thing.0}"),
        ("{colour}", "the {thing.1} in the {place} are {colour} and {look}"),
        ("{colour}", "a {colour} {animal} looked at the {look} {thing.0}"),
        ("{colour}", "the {person} painted the {look} {thing.0} {colour}"),
        ("{colour}", "{name} likes {colour} {thing.1}, not {look} ones"),
        ("{colour}", "the {place} has {look} {thing1.1} and {colour} {thing2.1}"),
    ),
)

UNSEEN = Side(
    {
        **unseen("name", "thing", "place", "animal", "person"),
        "colour": words("orange, pink, purple, grey, golden, silver, violet"),
        "look": words("new, light, large, modern, expensive, ugly, clean, funny"),
    },
    (
        ("{colour}", "why is the {look} {thing.0} so {colour}"),
        ("{colour}", "near the {place} stood a {animal} with {colour} eyes and a {look} {thing.0}"),
        ("{colour}", "{name} wore {colour} shoes to the {look} {place}"),
        ("{colour}", "that {look} {thing.0} of the {person} must be {colour}"),
        ("{colour}", "my {colour} {thing.0} is {look}"),
    ),
)

GRAMMAR = Grammar("colour", "colour", (), SEEN, UNSEEN)


def colour(seed: int = 0, sizes: Sizes = (1000, 200, 400)) -> Task:
    """Make the task: sentence -> its colour.

    Args:
        seed: the same seed gives the same task.
        sizes: how many train, validation and test examples.

    Raises:
        TaskError: more texts were asked for than the grammar can make.

    Example:
        >>> task = colour(sizes=(20, 4, 8))
        >>> len(task.test), task.kind
        (8, 'function')
    """
    return make(GRAMMAR, seed, sizes)
