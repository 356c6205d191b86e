"""Quantity: none, few or many, said in words that must be read together ("no fewer than ninety" is many)."""

from __future__ import annotations

from umaf.tasks.generated.grammar import Grammar, Side, Sizes, labelled, make
from umaf.tasks.generated.lexicon import seen, unseen
from umaf.tasks.task import Task

LABELS = ("none", "few", "many")

SEEN = Side(
    seen("name", "place", "thing"),
    labelled(
        "none",
        "there were no {thing.1} in the {place}",
        "nobody saw any {thing.1} in the {place}",
        "not a single {thing.0} was left in the {place}",
        "{name} came for {thing.1}, but the {place} had none",
    )
    + labelled(
        "few",
        "there were not many {thing.1} in the {place}",
        "only two or three {thing.1} were left in the {place}",
        "{name} saw hardly any {thing.1} in the {place}",
        "a couple of {thing.1} lay in the {place}",
        "there were no more than three {thing.1} in the {place}",
    )
    + labelled(
        "many",
        "there were many {thing.1} in the {place}",
        "the {place} was full of {thing.1}",
        "{name} saw hundreds of {thing.1} in the {place}",
        "there were no fewer than ninety {thing.1} in the {place}",
        "there was no end of {thing.1} in the {place}",
    ),
)

UNSEEN = Side(
    unseen("name", "place", "thing"),
    labelled(
        "none",
        "the {place} did not have any {thing.1}",
        "all the {thing.1} were gone from the {place}",
        "{name} looked for {thing.1} in the {place} but found none",
        "the {place} had never held a single {thing.0}",
    )
    + labelled(
        "few",
        "{name} found only a few {thing.1} in the {place}",
        "barely three {thing.1} could be seen in the {place}",
        "no more than a couple of {thing.1} stood in the {place}",
        "the {place} did not have many {thing.1}",
    )
    + labelled(
        "many",
        "{name} could not count all the {thing.1} in the {place}",
        "countless {thing.1} filled the {place}",
        "no fewer than a hundred {thing.1} stood in the {place}",
        "the {place} had more {thing.1} than {name} had ever seen",
    ),
)

GRAMMAR = Grammar("quantity", "quantity", LABELS, SEEN, UNSEEN)


def quantity(seed: int = 0, sizes: Sizes = (1000, 200, 400)) -> Task:
    """Make the task: how many things are there?

    Args:
        seed: the same seed gives the same task.
        sizes: how many train, validation and test examples.

    Raises:
        TaskError: more texts were asked for than the grammar can make.

    Example:
        >>> task = quantity(sizes=(20, 4, 8))
        >>> len(task.test), task.labels
        (8, ('none', 'few', 'many'))
    """
    return make(GRAMMAR, seed, sizes)
