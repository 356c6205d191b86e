"""Function: the past tense of the sentence's verb, regular or not."""

from __future__ import annotations

from umaf.tasks.generated.grammar import Grammar, Side, Sizes, make, words
from umaf.tasks.generated.lexicon import seen, unseen
from umaf.tasks.task import Task

SEEN = Side(
    {
        **seen("name", "place", "person"),
        "verb": words(
            "walk/walked, drive/drove, swim/swam, jump/jumped, talk/talked, dance/danced, work/worked, "
            "sleep/slept, wait/waited, fly/flew, play/played, shout/shouted, climb/climbed, stay/stayed, "
            "sing/sang, stop/stopped, stand/stood, begin/began, win/won, speak/spoke"
        ),
    },
    (
        ("{verb.1}", "every day they {verb.0} near the {place}"),
        ("{verb.1}", "{name} and {name2} {verb.0} a lot"),
        ("{verb.1}", "we {verb.0} with {name} on Mondays"),
        ("{verb.1}", "the {person} and I {verb.0} in the {place}"),
        ("{verb.1}", "you {verb.0} like {name}"),
    ),
)

UNSEEN = Side(
    {
        **unseen("name", "place", "person"),
        "verb": words(
            "run/ran, ride/rode, laugh/laughed, cry/cried, cook/cooked, smile/smiled, eat/ate, sit/sat, "
            "fall/fell, look/looked, listen/listened, travel/travelled, shop/shopped, rest/rested, "
            "drink/drank"
        ),
    },
    (
        ("{verb.1}", "these people {verb.0} more than {name}"),
        ("{verb.1}", "some of us {verb.0} at the {place}"),
        ("{verb.1}", "my friends always {verb.0} when {name} is here"),
        ("{verb.1}", "both of them {verb.0} behind the {place}"),
        ("{verb.1}", "they never {verb.0} without the {person}"),
    ),
)

GRAMMAR = Grammar("past", "past", (), SEEN, UNSEEN)


def past(seed: int = 0, sizes: Sizes = (1000, 200, 400)) -> Task:
    """Make the task: sentence -> the past tense of its verb.

    Args:
        seed: the same seed gives the same task.
        sizes: how many train, validation and test examples.

    Raises:
        TaskError: more texts were asked for than the grammar can make.

    Example:
        >>> task = past(sizes=(20, 4, 8))
        >>> len(task.test), task.kind
        (8, 'function')
    """
    return make(GRAMMAR, seed, sizes)
