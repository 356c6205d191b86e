"""How the tasks of the published sets are spoken: the word before the answer, and the words for the labels.

A pure table. A label that is not listed is spoken as its own name, split at underscores and capitals
("book_flight" and "BookFlight" are both "book flight").
"""

from __future__ import annotations

import re

CUES: dict[str, str] = {
    "banking77": "request",
    "boolq_nopassage": "answer",
    "clinc10_domain": "domain",
    "clinc150": "intent",
    "goemotions28": "emotion",
    "goemotions_ekman7": "feeling",
    "mnli": "relation",
    "movie_reviews_long": "verdict",
    "mr_polarity": "sentiment",
    "pros_cons": "side",
    "qnli": "answered",
    "sentlabel_amazon_cells": "rating",
    "sentlabel_imdb": "opinion",
    "snips7": "command",
    "snli": "inference",
    "strategyqa_yesno": "reply",
}

LABELS: dict[str, dict[str, str]] = {
    "snips7": {
        "AddToPlaylist": "playlist",
        "BookRestaurant": "restaurant",
        "GetWeather": "weather",
        "PlayMusic": "music",
        "RateBook": "book",
        "SearchCreativeWork": "search",
        "SearchScreeningEvent": "film",
    },
    "pros_cons": {"pro": "good", "con": "bad"},
    "mnli": {"entailment": "yes", "neutral": "maybe", "contradiction": "no"},
    "snli": {"entailment": "yes", "neutral": "maybe", "contradiction": "no"},
    "qnli": {"entailment": "yes", "not_entailment": "no"},
    "clinc10_domain": {
        "auto_and_commute": "car",
        "credit_cards": "credit",
        "kitchen_and_dining": "food",
        "small_talk": "chat",
    },
}

_CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])")


def spoken(task: str, label: str) -> str:
    """Give the words that stand for a label in a prompt.

    Example:
        >>> spoken("clinc150", "book_flight"), spoken("pros_cons", "pro")
        ('book flight', 'good')
    """
    known = LABELS.get(task, {}).get(label)
    return known or _CAPITAL.sub(" ", label).replace("_", " ").replace("?", "").lower().strip()


def cue(task: str) -> str:
    """Give the word shown before the answer: listed above, else the task's own name in words.

    Example:
        >>> cue("mr_polarity"), cue("fv/singular-plural")
        ('sentiment', 'singular plural')
    """
    return CUES.get(task) or re.sub(r"[-_/:]+", " ", task.split("/")[-1]).strip()
