"""Tense of the main verb, with misleading time words: "painted the gate for the party tomorrow" is past."""

from __future__ import annotations

from umaf.tasks.generated.grammar import Grammar, Side, Sizes, labelled, make
from umaf.tasks.generated.lexicon import seen, unseen
from umaf.tasks.task import Task

LABELS = ("past", "present", "future")

SEEN = Side(
    seen("name", "person", "action"),
    labelled(
        "past",
        "{name} {action.2} last week",
        "yesterday the {person} {action.2}",
        "{name} was {action.3} when the {person} came",
        "the {person} did {action.0} in the end",
        "the {person} {action.2} for the party tomorrow",
        "{name} {action.2} because a guest will come soon",
    )
    + labelled(
        "present",
        "{name} {action.1} every day",
        "right now the {person} is {action.3}",
        "{name} is {action.3} because of the rain yesterday",
        "the {person} {action.1} each week for the party",
        "{name} is {action.3} for the party tomorrow",
        "the {person} never {action.1} with {name}",
    )
    + labelled(
        "future",
        "{name} will {action.0} next week",
        "tomorrow the {person} is going to {action.0}",
        "{name} will {action.0} because of the rain yesterday",
        "the {person} will soon be {action.3}",
        "{name} is going to {action.0} after the last party",
        "the {person} says that {name} will {action.0}",
    ),
)

UNSEEN = Side(
    unseen("name", "person", "action"),
    labelled(
        "past",
        "an hour ago the {person} {action.2}",
        "{name} {action.2} before the trip planned for next year",
        "we saw that {name} was {action.3}",
        "at that time {name} {action.2} very slowly",
        "back then the {person} did {action.0} too",
    )
    + labelled(
        "present",
        "these days {name} {action.1} very slowly",
        "at this moment the {person} is {action.3}",
        "{name} usually {action.1} on Mondays",
        "look, {name} is {action.3} just as last year",
        "we see that the {person} is {action.3}",
    )
    + labelled(
        "future",
        "in an hour the {person} will {action.0}",
        "{name} is about to {action.0}",
        "one day {name} will be {action.3}",
        "as we said an hour ago, {name} will {action.0} very slowly",
        "the {person} is going to {action.0} just as last year",
    ),
)

GRAMMAR = Grammar("tense", "tense", LABELS, SEEN, UNSEEN)


def tense(seed: int = 0, sizes: Sizes = (1000, 200, 400)) -> Task:
    """Make the task: is it past, present or future?

    Args:
        seed: the same seed gives the same task.
        sizes: how many train, validation and test examples.

    Raises:
        TaskError: more texts were asked for than the grammar can make.

    Example:
        >>> task = tense(sizes=(20, 4, 8))
        >>> len(task.test), task.labels
        (8, ('past', 'present', 'future'))
    """
    return make(GRAMMAR, seed, sizes)
