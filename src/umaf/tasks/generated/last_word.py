"""Function: the last word of the sentence."""

from __future__ import annotations

from umaf.tasks.generated.grammar import Grammar, Side, Sizes, make
from umaf.tasks.generated.lexicon import seen, unseen
from umaf.tasks.task import Task

SEEN = Side(
    seen("name", "person", "animal", "thing", "place"),
    (
        ("{thing.0}", "{name} gave the {person} a {thing.0}"),
        ("{place}", "the {animal} slept in the {place}"),
        ("{name}", "yesterday the {person} sold the {thing.1} to {name}"),
        ("{animal}", "in the {place} there was a {animal}"),
        ("{person}", "{name} talked for an hour with the {person}"),
        ("{thing.1}", "{name} keeps the {animal} away from the {thing.1}"),
    ),
)

UNSEEN = Side(
    unseen("name", "person", "animal", "thing", "place"),
    (
        ("{thing.0}", "why did {name} leave without a {thing.0}"),
        ("{place}", "the {person} came late to the {place}"),
        ("{name}", "I think that the {animal} belongs to {name}"),
        ("{animal}", "nobody but {name} heard the {animal}"),
        ("{person}", "this {thing.0} was made by the {person}"),
        ("{thing.1}", "near the {place} they found four {thing.1}"),
    ),
)

GRAMMAR = Grammar("last_word", "last", (), SEEN, UNSEEN)


def last_word(seed: int = 0, sizes: Sizes = (1000, 200, 400)) -> Task:
    """Make the task: sentence -> its last word.

    Args:
        seed: the same seed gives the same task.
        sizes: how many train, validation and test examples.

    Raises:
        TaskError: more texts were asked for than the grammar can make.

    Example:
        >>> task = last_word(sizes=(20, 4, 8))
        >>> len(task.test), task.kind
        (8, 'function')
    """
    return make(GRAMMAR, seed, sizes)
