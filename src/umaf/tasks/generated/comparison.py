"""Comparison: three people, two comparisons, and the question who is at one end of the scale.

The answer is the place at which that person was first named. Both adjectives of a pair are in most texts.
"""

from __future__ import annotations

from umaf.tasks.generated.grammar import Grammar, Side, Sizes, make, words
from umaf.tasks.generated.lexicon import seen, unseen
from umaf.tasks.task import Task

LABELS = ("first", "second", "third")
MORE, LESS = "0", "2"  # forms of a pair: taller/tallest/shorter/shortest


def _chains() -> list[tuple[str, str, str, str]]:
    """List every pair of clauses that puts three names into one order: (clause, clause, question, answer)."""
    chains = []
    for first in (MORE, LESS):
        for left, right in ((2, 3), (3, 1)):  # go on from the second name, or come back to the first
            for upright in (True, False):
                over, under = (left, right) if upright else (right, left)
                second = first if upright else (LESS if first == MORE else MORE)
                clauses = (
                    f"{{name1}} is {{pair.{first}}} than {{name2}}",
                    f"{{name{over}}} is {{pair.{second}}} than {{name{under}}}",
                )
                order = (1, 2, 3) if left == 2 else (3, 1, 2)
                top, bottom = (order[0], order[2]) if first == MORE else (order[2], order[0])
                chains += [
                    (*clauses, "{pair.1}", LABELS[top - 1]),
                    (*clauses, "{pair.3}", LABELS[bottom - 1]),
                ]
    return chains


def _templates(*frames: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        (answer, frame.replace("CLAUSE", one, 1).replace("CLAUSE", two, 1).replace("MOST", most))
        for one, two, most, answer in _chains()
        for frame in frames
    )


SEEN = Side(
    {
        **seen("name"),
        "pair": words(
            "taller/tallest/shorter/shortest, older/oldest/younger/youngest, faster/fastest/slower/slowest, "
            "richer/richest/poorer/poorest"
        ),
    },
    _templates(
        "CLAUSE and CLAUSE, so who is the MOST",
        "CLAUSE, and CLAUSE, and now say who is the MOST",
    ),
)

UNSEEN = Side(
    {
        **unseen("name"),
        "pair": words(
            "stronger/strongest/weaker/weakest, bigger/biggest/smaller/smallest, "
            "happier/happiest/sadder/saddest, louder/loudest/quieter/quietest"
        ),
    },
    _templates(
        "if CLAUSE while CLAUSE, who must be the MOST of them",
        "tell me which one is the MOST when CLAUSE but CLAUSE",
    ),
)

GRAMMAR = Grammar("comparison", "answer", LABELS, SEEN, UNSEEN)


def comparison(seed: int = 0, sizes: Sizes = (1000, 200, 400)) -> Task:
    """Make the task: which of the three people named is it?

    Args:
        seed: the same seed gives the same task.
        sizes: how many train, validation and test examples.

    Raises:
        TaskError: more texts were asked for than the grammar can make.

    Example:
        >>> task = comparison(sizes=(20, 4, 8))
        >>> len(task.test), task.labels
        (8, ('first', 'second', 'third'))
    """
    return make(GRAMMAR, seed, sizes)
