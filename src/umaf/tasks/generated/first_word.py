"""Function: the first word of the sentence."""

from __future__ import annotations

from umaf.tasks.generated.grammar import Grammar, Side, Sizes, make
from umaf.tasks.generated.lexicon import seen, unseen
from umaf.tasks.task import Task

SEEN = Side(
    seen("name", "person", "animal", "thing", "place"),
    (
        ("{name}", "{name} gave the {person} a {thing.0}"),
        ("{thing.1}", "{thing.1} were all that {name} wanted"),
        ("{thing.1}", "{thing.1} lay in the {place} of the {person}"),
        ("{name}", "{name} slept in the {place} with the {animal}"),
        ("{thing.1}", "{thing.1} and a {animal} came from {name}"),
    ),
)

UNSEEN = Side(
    unseen("name", "person", "animal", "thing", "place"),
    (
        ("{name}", "{name} left without the {thing.0}"),
        ("{thing.1}", "{thing.1} make the {animal} nervous"),
        ("{thing.1}", "{thing.1} can be found near the {place}"),
        ("{name}", "{name} thinks that the {person} is right"),
        ("{name}", "{name} never met the {person} near the {place}"),
    ),
)

GRAMMAR = Grammar("first_word", "first", (), SEEN, UNSEEN)


def first_word(seed: int = 0, sizes: Sizes = (1000, 200, 400)) -> Task:
    """Make the task: sentence -> its first word.

    Args:
        seed: the same seed gives the same task.
        sizes: how many train, validation and test examples.

    Raises:
        TaskError: more texts were asked for than the grammar can make.

    Example:
        >>> task = first_word(sizes=(20, 4, 8))
        >>> len(task.test), task.kind
        (8, 'function')
    """
    return make(GRAMMAR, seed, sizes)
