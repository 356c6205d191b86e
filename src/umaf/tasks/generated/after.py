"""Function: the word that follows a named word in a list."""

from __future__ import annotations

from itertools import pairwise

from umaf.tasks.generated import lexicon
from umaf.tasks.generated.grammar import Grammar, Side, Sizes, make
from umaf.tasks.generated.lexicon import seen, unseen
from umaf.tasks.task import Task


def _lists(*frames: str) -> tuple[tuple[str, str], ...]:
    """Fill in lists of three to five things, with each of them but the last as the named word."""
    made = []
    for length in (3, 4, 5):
        items = [f"{{item{place}.0}}" for place in range(1, length + 1)]
        for named, following in pairwise(items):
            made += [(following, f.replace("LIST", " ".join(items)).replace("WORD", named)) for f in frames]
    return tuple(made)


SEEN = Side(
    {**seen("name"), "item": (*lexicon.SEEN["thing"], *lexicon.SEEN["animal"])},
    _lists(
        "LIST, after WORD",
        "read LIST, then say what follows WORD",
        "{name} wrote LIST, which word did {name} write after WORD",
    ),
)

UNSEEN = Side(
    {**unseen("name"), "item": (*lexicon.UNSEEN["thing"], *lexicon.UNSEEN["animal"])},
    _lists(
        "behind WORD in LIST",
        "in the row LIST, what comes next to WORD on the right",
        "look at LIST and tell {name} the one right after WORD",
    ),
)

GRAMMAR = Grammar("after", "next", (), SEEN, UNSEEN)


def after(seed: int = 0, sizes: Sizes = (1000, 200, 400)) -> Task:
    """Make the task: list and a word of it -> the word after it.

    Args:
        seed: the same seed gives the same task.
        sizes: how many train, validation and test examples.

    Raises:
        TaskError: more texts were asked for than the grammar can make.

    Example:
        >>> task = after(sizes=(20, 4, 8))
        >>> len(task.test), task.kind
        (8, 'function')
    """
    return make(GRAMMAR, seed, sizes)
