"""Function: the opposite of the one adjective in the sentence; pairs are used in both directions."""

from __future__ import annotations

from umaf.tasks.generated.grammar import Grammar, Side, Sizes, make, words
from umaf.tasks.generated.lexicon import seen, unseen
from umaf.tasks.task import Task


def _both(table: str) -> tuple[str, ...]:
    pairs = words(table)
    return pairs + tuple("/".join(reversed(pair.split("/"))) for pair in pairs)


SEEN = Side(
    {
        **seen("name", "place", "thing"),
        "pair": _both(
            "hot/cold, big/small, old/new, good/bad, clean/dirty, open/closed, strong/weak, "
            "rich/poor, thick/thin, hard/soft, long/short, safe/dangerous, quiet/loud"
        ),
    },
    (
        ("{pair.1}", "the {thing.0} in the {place} is {pair.0}"),
        ("{pair.1}", "{name} thinks the {thing.1} are too {pair.0}"),
        ("{pair.1}", "it was {pair.0} when {name} came to the {place}"),
        ("{pair.1}", "a {pair.0} {thing.0} lay in the {place}"),
        ("{pair.1}", "{name} was never so {pair.0}"),
    ),
)

UNSEEN = Side(
    {
        **unseen("name", "place", "thing"),
        "pair": _both(
            "fast/slow, dark/light, wet/dry, full/empty, happy/sad, high/low, near/far, cheap/expensive, "
            "sweet/sour, wide/narrow"
        ),
    },
    (
        ("{pair.1}", "why is the {thing.0} so {pair.0}"),
        ("{pair.1}", "the {place} seems {pair.0} to {name}"),
        ("{pair.1}", "{name} called the {thing.0} {pair.0}"),
        ("{pair.1}", "they say that it is {pair.0} at the {place}"),
        ("{pair.1}", "what a {pair.0} {thing.0} {name} has"),
    ),
)

GRAMMAR = Grammar("opposite", "opposite", (), SEEN, UNSEEN)


def opposite(seed: int = 0, sizes: Sizes = (1000, 200, 400)) -> Task:
    """Make the task: sentence -> the opposite of its adjective.

    Args:
        seed: the same seed gives the same task.
        sizes: how many train, validation and test examples.

    Raises:
        TaskError: more texts were asked for than the grammar can make.

    Example:
        >>> task = opposite(sizes=(20, 4, 8))
        >>> len(task.test), task.kind
        (8, 'function')
    """
    return make(GRAMMAR, seed, sizes)
