"""Order of two events: was the one named first also the first to happen?

Every word of a frame is in both labels, so that only the order of the clauses tells.
"""

from __future__ import annotations

from umaf.tasks.generated.grammar import Grammar, Side, Sizes, labelled, make
from umaf.tasks.generated.lexicon import seen, unseen
from umaf.tasks.task import Task

LABELS = ("first", "second")

SEEN = Side(
    seen("name", "person", "action"),
    labelled(
        "first",
        "{name1} {action1.2} before {name2} {action2.2}",
        "after {name1} {action1.2}, {name2} {action2.2}",
        "{name1} {action1.2} long before the {person} {action2.2}",
        "long after {name1} {action1.2}, the {person} {action2.2}",
        "only after the {person} {action1.2} came the day when {name} {action2.2}",
        "in the morning the {person} {action1.2}, and then {name} {action2.2}",
    )
    + labelled(
        "second",
        "{name1} {action1.2} after {name2} {action2.2}",
        "before {name1} {action1.2}, {name2} {action2.2}",
        "{name1} {action1.2} long after the {person} {action2.2}",
        "long before {name1} {action1.2}, the {person} {action2.2}",
        "the day when the {person} {action1.2} came only after {name} {action2.2}",
        "then the {person} {action1.2}, for in the morning {name} {action2.2}",
    ),
)

UNSEEN = Side(
    unseen("name", "person", "action"),
    labelled(
        "first",
        "{name} {action1.2} shortly before the {person} {action2.2}",
        "the day after {name1} {action1.2}, {name2} {action2.2}",
        "right after the {person} {action1.2}, {name} {action2.2}",
        "{name1} {action1.2} before {action2.3} with {name2}",
        "after {action1.3} with {name1}, {name2} {action2.2}",
        "{name} {action1.2} some time before the {person} {action2.2}",
    )
    + labelled(
        "second",
        "shortly before {name} {action1.2}, the {person} {action2.2}",
        "{name1} {action1.2} the day after {name2} {action2.2}",
        "the {person} {action1.2} right after {name} {action2.2}",
        "before {action1.3} with {name1}, {name2} {action2.2}",
        "{name1} {action1.2} after {action2.3} with {name2}",
        "some time before {name} {action1.2}, the {person} {action2.2}",
    ),
)

GRAMMAR = Grammar("ordering", "earlier", LABELS, SEEN, UNSEEN)


def ordering(seed: int = 0, sizes: Sizes = (1000, 200, 400)) -> Task:
    """Make the task: which event came first in time, the one named first or second?

    Args:
        seed: the same seed gives the same task.
        sizes: how many train, validation and test examples.

    Raises:
        TaskError: more texts were asked for than the grammar can make.

    Example:
        >>> task = ordering(sizes=(20, 4, 8))
        >>> len(task.test), task.labels
        (8, ('first', 'second'))
    """
    return make(GRAMMAR, seed, sizes)
