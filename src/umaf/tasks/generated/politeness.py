"""Politeness: the same errand as a polite request or as an order."""

from __future__ import annotations

from umaf.tasks.generated.grammar import Grammar, Side, Sizes, labelled, make
from umaf.tasks.generated.lexicon import seen, unseen
from umaf.tasks.task import Task

LABELS = ("request", "order")

SEEN = Side(
    seen("name", "person", "action"),
    labelled(
        "request",
        "could you please {action.0}",
        "would you mind {action.3}, {name}",
        "{name}, if you have time, could you {action.0}",
        "please {action.0} whenever it suits you, {name}",
        "might I ask you to {action.0} for the {person}",
        "I would love it if you could {action.0}, but there is no hurry",
        "you may say no, {name}, but would you {action.0}",
    )
    + labelled(
        "order",
        "{action.0} right now, {name}",
        "you must {action.0} at once",
        "{name}, {action.0} and be quick",
        "stop talking to the {person} and {action.0}",
        "I said {action.0}, so do it",
        "I do not care if you have time, {action.0}",
        "you may not say no, {name}, you will {action.0}",
    ),
)

UNSEEN = Side(
    unseen("name", "person", "action"),
    labelled(
        "request",
        "I would be so grateful if you would {action.0}",
        "excuse me, {name}, can you {action.0} for me, please",
        "do you think you could {action.0} for the {person}",
        "would it be possible to {action.0} today, {name}",
        "if it is not too much trouble, please {action.0}",
    )
    + labelled(
        "order",
        "{action.0} this minute, {name}",
        "get up and {action.0} for the {person}",
        "I want you to {action.0} without another word",
        "why can you never listen, {name}, just {action.0}",
        "you will {action.0} today, and if not, there will be trouble",
    ),
)

GRAMMAR = Grammar("politeness", "manner", LABELS, SEEN, UNSEEN)


def politeness(seed: int = 0, sizes: Sizes = (1000, 200, 400)) -> Task:
    """Make the task: is it a polite request or an order?

    Args:
        seed: the same seed gives the same task.
        sizes: how many train, validation and test examples.

    Raises:
        TaskError: more texts were asked for than the grammar can make.

    Example:
        >>> task = politeness(sizes=(20, 4, 8))
        >>> len(task.test), task.labels
        (8, ('request', 'order'))
    """
    return make(GRAMMAR, seed, sizes)
