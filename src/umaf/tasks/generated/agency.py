"""Who did it to whom: a person to an animal, or an animal to a person, in active, passive and cleft frames.

Every frame exists in both labels with the two swapped: the words are the same, only their roles differ.
"""

from __future__ import annotations

from umaf.tasks.generated.grammar import Grammar, Side, Sizes, make, mirrored
from umaf.tasks.generated.lexicon import seen, unseen
from umaf.tasks.task import Task

LABELS = ("person", "animal")
SWAPS = {"person": "animal"}

SEEN = Side(
    seen("name", "person", "animal", "encounter", "place"),
    mirrored(
        LABELS,
        SWAPS,
        "the {person} {encounter.1} the {animal}",
        "the {animal} was {encounter.2} by the {person}",
        "it was the {person} that {encounter.1} the {animal}",
        "it was the {animal} that the {person} {encounter.1}",
        "the {animal} that the {person} {encounter.1} ran to the {place}",
        "the {person} that {encounter.1} the {animal} ran to the {place}",
        "{name} saw the {person} that {encounter.1} the {animal}",
        "{name} saw the {animal} that the {person} {encounter.1}",
        "in the {place} the {animal} got {encounter.2} by the {person}",
        "in the {place} the {person} {encounter.1} the {animal}",
    ),
)

UNSEEN = Side(
    unseen("name", "person", "animal", "encounter", "place"),
    mirrored(
        LABELS,
        SWAPS,
        "near the {place}, the {person} {encounter.1} the {animal} twice",
        "the {animal} had been {encounter.2} by the {person} again",
        "here is the {animal} that the {person} {encounter.1}",
        "here is the {person} that {encounter.1} the {animal}",
        "{encounter.2} by the {person}, the {animal} left the {place}",
        "what the {person} {encounter.1} near the {place} was the {animal}",
        "{name} says that the {person} {encounter.1} the {animal}",
        "{name} says that the {animal} was {encounter.2} by the {person}",
    ),
)

GRAMMAR = Grammar("agency", "doer", LABELS, SEEN, UNSEEN)


def agency(seed: int = 0, sizes: Sizes = (1000, 200, 400)) -> Task:
    """Make the task: was the doer the person or the animal?

    Args:
        seed: the same seed gives the same task.
        sizes: how many train, validation and test examples.

    Raises:
        TaskError: more texts were asked for than the grammar can make.

    Example:
        >>> task = agency(sizes=(20, 4, 8))
        >>> len(task.test), task.labels
        (8, ('person', 'animal'))
    """
    return make(GRAMMAR, seed, sizes)
