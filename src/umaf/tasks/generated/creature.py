"""Function: the animal that the sentence names, whatever part it plays there."""

from __future__ import annotations

from umaf.tasks.generated.grammar import Grammar, Side, Sizes, make
from umaf.tasks.generated.lexicon import seen, unseen
from umaf.tasks.task import Task

SEEN = Side(
    seen("name", "person", "animal", "thing", "place", "encounter"),
    (
        ("{animal}", "the {person} {encounter.1} the {animal} in the {place}"),
        ("{animal}", "a {animal} {encounter.1} {name} near the {thing.1}"),
        ("{animal}", "{name} was {encounter.2} by a {animal} again"),
        ("{animal}", "the {thing.0} of the {person} belongs to the {animal}"),
        ("{animal}", "in the {place} the {animal} sat on the {thing.0}"),
    ),
)

UNSEEN = Side(
    unseen("name", "person", "animal", "thing", "place", "encounter"),
    (
        ("{animal}", "{name} told the {person} about the {animal}"),
        ("{animal}", "which {animal} was {encounter.2} by the {person}"),
        ("{animal}", "no {thing.0} could ever please this {animal}"),
        ("{animal}", "both {name} and the {animal} left the {place}"),
        ("{animal}", "there goes the {animal} that the {person} {encounter.1}"),
    ),
)

GRAMMAR = Grammar("creature", "animal", (), SEEN, UNSEEN)


def creature(seed: int = 0, sizes: Sizes = (1000, 200, 400)) -> Task:
    """Make the task: sentence -> its animal.

    Args:
        seed: the same seed gives the same task.
        sizes: how many train, validation and test examples.

    Raises:
        TaskError: more texts were asked for than the grammar can make.

    Example:
        >>> task = creature(sizes=(20, 4, 8))
        >>> len(task.test), task.kind
        (8, 'function')
    """
    return make(GRAMMAR, seed, sizes)
