"""Multiple choice about what kind of thing a word names: one among three (easy), and the odd one of four (hard)."""

from __future__ import annotations

import random

from umaf.tasks.graded.lexicon import KINDS
from umaf.tasks.graded.sides import SIZES, Graded, Sizes, make, side_of
from umaf.tasks.task import Example, Task

ASKED = {
    "lessons": ("which is the {kind}?", "which of these is the {kind}?", "pick the {kind}."),
    "practice": ("find the {kind}.", "of these, which is the {kind}?"),
    "validation": ("which one is the {kind}?",),
    "test": ("what here is the {kind}?", "name the {kind}."),
}
ODD = {
    "lessons": ("which does not belong?", "which is the odd one?"),
    "practice": ("find the odd one.",),
    "validation": ("which one does not belong?",),
    "test": ("which of these is the odd one?",),
}


def _choices(rng: random.Random, side: str) -> Example:
    while True:
        kinds = rng.sample(sorted(KINDS), 3)
        words = [rng.choice(KINDS[kind]) for kind in kinds]
        if side_of("choices", *sorted(words)) == side:
            break
    right = rng.randrange(3)
    asked = rng.choice(ASKED[side]).format(kind=kinds[right])
    return Example(f"{asked} {words[0]}, {words[1]} or {words[2]}", words[right])


def _odd_one_out(rng: random.Random, side: str) -> Example:
    while True:
        kind, other = rng.sample(sorted(KINDS), 2)
        words, odd = rng.sample(KINDS[kind], 3), rng.choice(KINDS[other])
        if side_of("odd one", odd, *sorted(words)) == side:
            break
    words.insert(rng.randrange(4), odd)
    return Example(f"{rng.choice(ODD[side])} {', '.join(words)}", odd)


CHOICES_TASK = Graded("choices", "choice", _choices)
ODD_ONE_OUT_TASK = Graded("odd_one_out", "choice", _odd_one_out)


def choices(seed: int = 0, sizes: Sizes = SIZES) -> Task:
    """Make the task: a kind and three words -> the word of that kind.

    Example:
        >>> task = choices(sizes=(4, 2, 2))
        >>> task.test[0].answer in task.test[0].text
        True
    """
    return make(CHOICES_TASK, seed, sizes)


def odd_one_out(seed: int = 0, sizes: Sizes = SIZES) -> Task:
    """Make the task: four words -> the one that is of another kind."""
    return make(ODD_ONE_OUT_TASK, seed, sizes)
