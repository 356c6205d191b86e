"""Plain running text from the seen sides of all grammars, without labels, for pretraining language models."""

from __future__ import annotations

import importlib
import random

from umaf.errors import TaskError
from umaf.seeds import derive
from umaf.tasks.generated import GENERATED
from umaf.tasks.generated.grammar import Grammar, draw


def grammar(name: str) -> Grammar:
    """Load the grammar of a generated task.

    Args:
        name: such as "made/sentiment".

    Raises:
        TaskError: there is no such generated task.

    Example:
        >>> grammar("made/tense").labels
        ('past', 'present', 'future')
    """
    if name not in GENERATED:
        raise TaskError(f"The grammar of {name!r} was asked for; there are only {', '.join(GENERATED)}.")
    return importlib.import_module(GENERATED[name].split(":")[0]).GRAMMAR


def sentences(seed: int, n: int) -> list[str]:
    """Write sentences of the seen sides of all grammars, mixed at random, as plain prose.

    No template and no content word of a task's unseen side is used for that task's sentences, so a model
    pretrained on them has met no test text. Sentences may repeat where a grammar is small.

    Args:
        seed: the same seed gives the same sentences.
        n: how many, 0 or more.

    Example:
        >>> len(sentences(0, 5))
        5
    """
    rng = random.Random(derive(seed, "made", "sentences"))
    sources = [draw(rng, made, made.seen) for made in map(grammar, GENERATED)]
    return [_prose(next(rng.choice(sources)).text) for _ in range(n)]


def _prose(text: str) -> str:
    return text[0].upper() + text[1:] + "."
