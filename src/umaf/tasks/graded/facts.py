"""Lessons for a base model: every sum, every word's kind and mood, every operation's name.

Facts are what a pretrained model knows; the tasks ask to use them. Which combinations of words, numbers and phrases a
question holds is kept apart by side.
"""

from __future__ import annotations

import random

from umaf.tasks.graded.lexicon import KINDS, MOODS
from umaf.tasks.graded.programs import LIST_WHATS, WORD_WHATS
from umaf.tasks.graded.stories import LARGEST
from umaf.tasks.task import Example


def fact(rng: random.Random) -> Example:
    """Draw a fact as a prompt without a question, and its completion.

    Example:
        >>> fact(random.Random(0)).answer != ""
        True
    """
    kind = rng.choice(("sum", "sum", "word", "word", "mood", "operation"))
    if kind == "sum":
        a, b = rng.randint(1, LARGEST), rng.randint(1, LARGEST)
        return (
            Example(f"{a} + {b} =", str(a + b)) if rng.random() < 0.5 else Example(f"{a + b} - {b} =", str(a))
        )
    if kind == "operation":
        whats, variable = rng.choice(((LIST_WHATS, "x"), (WORD_WHATS, "s")))
        phrases, form = rng.choice(whats)
        return Example(f"{rng.choice(phrases)} {variable}:", form.format(p=variable))
    words = KINDS if kind == "word" else MOODS
    label = rng.choice(sorted(words))
    one = rng.choice(words[label])
    if kind == "mood":
        return Example(f"{one} means", label)
    return Example(f"{one} is a kind of", label)
