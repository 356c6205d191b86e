"""Function: the plural of the one thing that the sentence names."""

from __future__ import annotations

from umaf.tasks.generated import lexicon
from umaf.tasks.generated.grammar import Grammar, Side, Sizes, make, words
from umaf.tasks.generated.lexicon import seen, unseen
from umaf.tasks.task import Task

SEEN = Side(
    {
        **seen("name"),
        "noun": (
            *lexicon.SEEN["thing"],
            *words(
                "wish/wishes, city/cities, knife/knives, brush/brushes, baby/babies, wolf/wolves, "
                "watch/watches, lady/ladies, tooth/teeth, man/men, cat/cats, dog/dogs, door/doors, "
                "glass/glasses, story/stories"
            ),
        ),
        "day": words("Monday, Tuesday, Wednesday, today, tomorrow, last week"),
    },
    (
        ("{noun.1}", "{name} has one {noun.0} and wants two"),
        ("{noun.1}", "one {noun.0} is not enough for {name}"),
        ("{noun.1}", "{name} drew a {noun.0} {day}"),
        ("{noun.1}", "{day} we saw a {noun.0} with {name}"),
        ("{noun.1}", "there is only one {noun.0} here, and {name} has it"),
        ("{noun.1}", "{name} and {name2} share one {noun.0}"),
    ),
)

UNSEEN = Side(
    {
        **unseen("name"),
        "noun": (
            *lexicon.UNSEEN["thing"],
            *words(
                "dish/dishes, party/parties, wife/wives, leaf/leaves, bus/buses, country/countries, "
                "bench/benches, foot/feet, woman/women, horse/horses, tree/trees, fox/foxes, fly/flies, "
                "house/houses"
            ),
        ),
        "day": words("tonight, on Friday, on Sunday, this morning, this year"),
    },
    (
        ("{noun.1}", "is that the {noun.0} of {name}"),
        ("{noun.1}", "{name} asked me for another {noun.0} {day}"),
        ("{noun.1}", "every {noun.0} reminds me of {name}"),
        ("{noun.1}", "{name} lost a {noun.0} {day}"),
        ("{noun.1}", "no {noun.0} is like that of {name}"),
    ),
)

GRAMMAR = Grammar("plural", "plural", (), SEEN, UNSEEN)


def plural(seed: int = 0, sizes: Sizes = (1000, 200, 400)) -> Task:
    """Make the task: sentence -> the plural of its noun.

    Args:
        seed: the same seed gives the same task.
        sizes: how many train, validation and test examples.

    Raises:
        TaskError: more texts were asked for than the grammar can make.

    Example:
        >>> task = plural(sizes=(20, 4, 8))
        >>> len(task.test), task.kind
        (8, 'function')
    """
    return make(GRAMMAR, seed, sizes)
