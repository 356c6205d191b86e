"""Certainty: a fact or a guess, with negation ("not certain", "no doubt") that turns one into the other."""

from __future__ import annotations

from umaf.tasks.generated.grammar import Grammar, Side, Sizes, labelled, make
from umaf.tasks.generated.lexicon import seen, unseen
from umaf.tasks.task import Task

LABELS = ("fact", "guess")

SEEN = Side(
    seen("name", "person", "action"),
    labelled(
        "fact",
        "it is certain that {name} {action.2}",
        "there is no doubt that the {person} {action.2}",
        "{name} {action.2}, and the {person} saw it",
        "we know that {name} {action.2}",
        "it is not a guess that {name} {action.2}",
        "the {person} will certainly {action.0}",
        "nobody doubts that {name} {action.2}",
        "there is no reason to think that {name} might be lying, the {person} {action.2}",
    )
    + labelled(
        "guess",
        "it is not certain that {name} {action.2}",
        "there is some doubt that the {person} {action.2}",
        "maybe {name} {action.2}, but the {person} never saw it",
        "we do not know that {name} {action.2}",
        "it is only a guess that {name} {action.2}",
        "the {person} might {action.0}",
        "the {person} doubts that {name} {action.2}",
        "there is some reason to think that {name} {action.2}",
    ),
)

UNSEEN = Side(
    unseen("name", "person", "action"),
    labelled(
        "fact",
        "without any doubt {name} {action.2}",
        "it has been shown that {name} {action.2}",
        "{name} {action.2}, and the photos prove it",
        "I am sure that the {person} {action.2}",
        "nobody questions that the {person} {action.2}",
        "it is clear now that {name} {action.2}",
    )
    + labelled(
        "guess",
        "I am not sure that the {person} {action.2}",
        "perhaps {name} {action.2}, though no photos prove it",
        "possibly the {person} {action.2}",
        "it has not been shown that {name} {action.2}",
        "I suppose that the {person} {action.2}",
        "it is not clear now that {name} {action.2}",
    ),
)

GRAMMAR = Grammar("certainty", "certainty", LABELS, SEEN, UNSEEN)


def certainty(seed: int = 0, sizes: Sizes = (1000, 200, 400)) -> Task:
    """Make the task: is it said as a fact or as a guess?

    Args:
        seed: the same seed gives the same task.
        sizes: how many train, validation and test examples.

    Raises:
        TaskError: more texts were asked for than the grammar can make.

    Example:
        >>> task = certainty(sizes=(20, 4, 8))
        >>> len(task.test), task.labels
        (8, ('fact', 'guess'))
    """
    return make(GRAMMAR, seed, sizes)
