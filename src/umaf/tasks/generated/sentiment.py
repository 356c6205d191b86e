"""Sentiment of a short opinion, with negation and contrast: the frame turns the adjective's meaning around.

Every frame exists in both labels with the adjectives swapped, so the frame alone says nothing.
"""

from __future__ import annotations

from umaf.tasks.generated.grammar import Grammar, Side, Sizes, make, mirrored, words
from umaf.tasks.generated.lexicon import seen, unseen
from umaf.tasks.task import Task

LABELS = ("positive", "negative")
SWAPS = {"good": "bad", "win": "flop"}

SEEN = Side(
    {
        **seen("name"),
        "what": words("film, meal, concert, book, song, show, novel, trip, game, dinner, speech, hotel"),
        "good": words(
            "good, great, wonderful, lovely, clever, brilliant, charming, fresh, funny, exciting, "
            "delightful, fine"
        ),
        "bad": words(
            "bad, awful, terrible, boring, weak, dull, ugly, stupid, poor, horrible, dreadful, lazy"
        ),
        "win": words("triumph, pleasure, success, treat, hit"),
        "flop": words("disaster, mess, failure, shame, flop"),
    },
    mirrored(
        LABELS,
        SWAPS,
        "the {what} was {good}",
        "I found the {what} really {good} and {good2}",
        "the {what} was not {bad} at all",
        "nobody could call this {what} {bad}",
        "the {what} was hardly a {flop}",
        "the {what} started out {bad} but ended up {good}",
        "it looked {bad} at first, but the {what} turned out {good}",
        "although the {what} seemed {bad}, in the end it was {good}",
        "I would never say that the {what} was {bad}",
        "what a {win} this {what} was",
        "{name} expected a {flop}, but the {what} was {good}",
        "{name} had feared a {bad} {what}, yet it was a {good} one",
    ),
)

UNSEEN = Side(
    {
        **unseen("name"),
        "what": words(
            "movie, play, album, restaurant, holiday, lesson, party, museum, story, series, room, opera"
        ),
        "good": words(
            "excellent, beautiful, superb, amazing, perfect, enjoyable, nice, fantastic, impressive, pleasant"
        ),
        "bad": words(
            "disappointing, nasty, tedious, annoying, unpleasant, mediocre, worthless, pathetic, painful, "
            "ridiculous"
        ),
        "win": words("joy, masterpiece, gem, delight"),
        "flop": words("waste, mistake, nightmare, bore"),
    },
    mirrored(
        LABELS,
        SWAPS,
        "we all thought this was a {good} {what}",
        "you could not say that the {what} was {bad}",
        "there was nothing {bad} about the {what}",
        "people warned us about a {bad} {what}, but it proved {good}",
        "the {what} was far from {bad}",
        "this {what} is {good} in every way",
        "our {what} was never {bad}, not even for a minute",
        "despite a {bad} beginning, the {what} became quite {good}",
        "for {name} and me the {what} was a real {win}",
        "the {what} was not the {flop} that {name} had promised",
    ),
)

GRAMMAR = Grammar("sentiment", "sentiment", LABELS, SEEN, UNSEEN)


def sentiment(seed: int = 0, sizes: Sizes = (1000, 200, 400)) -> Task:
    """Make the task: is the opinion positive or negative?

    Args:
        seed: the same seed gives the same task.
        sizes: how many train, validation and test examples.

    Raises:
        TaskError: more texts were asked for than the grammar can make.

    Example:
        >>> task = sentiment(sizes=(20, 4, 8))
        >>> len(task.test), task.labels
        (8, ('positive', 'negative'))
    """
    return make(GRAMMAR, seed, sizes)
