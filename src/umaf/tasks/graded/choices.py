"""Multiple choice about what kind of thing a word names: one among three (easy), and the odd one of four (hard)."""

from __future__ import annotations

import random

from umaf.tasks.graded.lexicon import KINDS
from umaf.tasks.graded.sides import SIZES, Graded, Sizes, make, side_of
from umaf.tasks.task import Example, Task

ASKED = {
    "train": ("which is the {kind}?", "which of these is the {kind}?", "pick the {kind}."),
    "validation": ("which one is the {kind}?",),
    "test": ("find the {kind}.", "of these, which is the {kind}?"),
}
ODD = {
    "train": ("which does not belong?", "which is the odd one?"),
    "validation": ("which one does not belong?",),
    "test": ("find the odd one.",),
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


def choices(seed: int = 0, sizes: Sizes = SIZES) -> Task:
    """Make the task: a kind and three words -> the word of that kind.

    Example:
        >>> task = choices(sizes=(4, 2, 2))
        >>> task.test[0].answer in task.test[0].text
        True
    """
    return make(Graded("choices", "choice", _choices), seed, sizes)


def odd_one_out(seed: int = 0, sizes: Sizes = SIZES) -> Task:
    """Make the task: four words -> the one that is of another kind."""
    return make(Graded("odd_one_out", "choice", _odd_one_out), seed, sizes)
