"""Tasks that only measure: multiple choice, short answers, minimal pairs, plain text.

Nothing is trained on these, so they have one list of items and no splits. `Task` (see `task.py`) is for capabilities,
with splits to learn from and to measure with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from umaf.tasks.task import Task

Compared = Literal["number", "words", "overlap"]


@dataclass(frozen=True)
class Question:
    """A question with choices.

    Attributes:
        text: what is asked; a text with `BLANK` in it is completed by each choice instead of followed by it.
        choices: two or more answers, all different.
        right: the place of the right one.

    Example:
        >>> Question("What barks?", ("a dog", "a cat"), 0).choices[0]
        'a dog'
    """

    text: str
    choices: tuple[str, ...]
    right: int


BLANK = "_"


@dataclass(frozen=True)
class Choices:
    """Multiple choice, answered by how likely each choice is to follow.

    Attributes:
        name: how it is asked for, such as "reasoning/arc_easy".
        questions: in the order of their source.
        cue: the word before the choice.
        source: where the texts come from.

    Example:
        >>> Choices("toy", (Question("What barks?", ("a dog", "a cat"), 0),)).cue
        'Answer'
    """

    name: str
    questions: tuple[Question, ...]
    cue: str = "Answer"
    source: str = ""


@dataclass(frozen=True)
class Answers:
    """Questions whose answer the model writes.

    Attributes:
        name: how it is asked for, such as "reasoning/gsm8k".
        questions: (text, right answer) in the order of their source.
        compared: how: "number" takes the last number written, "words" compares all words, "overlap" gives the share
            of words in common (F1), for answers no two writers would write alike.
        cue: the word before the answer.
        tokens: most tokens to write.
        source: where the texts come from.

    Example:
        >>> Answers("toy", (("2 + 2?", "4"),), "number").tokens
        24
    """

    name: str
    questions: tuple[tuple[str, str], ...]
    compared: Compared
    cue: str = "Answer"
    tokens: int = 24
    source: str = ""


@dataclass(frozen=True)
class Pair:
    """A sentence that is right, one that differs in little and is wrong, and the phenomenon they show.

    Example:
        >>> Pair("the dogs bark", "the dogs barks", "agreement").group
        'agreement'
    """

    good: str
    bad: str
    group: str


@dataclass(frozen=True)
class Pairs:
    """Minimal pairs: a model is right where it finds the good sentence likelier (Warstadt et al., 2020, BLiMP).

    Example:
        >>> Pairs("toy", (Pair("the dogs bark", "the dogs barks", "agreement"),)).source
        ''
    """

    name: str
    pairs: tuple[Pair, ...]
    source: str = ""


@dataclass(frozen=True)
class Corpus:
    """Plain text in pieces of about one page, for bits per byte.

    Example:
        >>> Corpus("toy", ("Once upon a time.",)).name
        'toy'
    """

    name: str
    pieces: tuple[str, ...]
    source: str = ""


Measured = Task | Choices | Answers | Pairs | Corpus
"""Anything a model can be scored on without another library."""


def pieces_of(text: str, *, size: int = 1500) -> tuple[str, ...]:
    """Cut a text into pieces of about a page, at ends of lines where there are any; nothing is lost.

    Args:
        text: of any length.
        size: most characters of a piece.

    Example:
        >>> pieces_of("one\\ntwo\\nthree", size=8)
        ('one\\ntwo\\n', 'three')
    """
    pieces, piece = [], ""
    for line in text.splitlines(keepends=True):
        if piece and len(piece) + len(line) > size:
            pieces.append(piece)
            piece = ""
        piece += line
        while len(piece) > size:
            pieces.append(piece[:size])
            piece = piece[size:]
    return tuple(one for one in (*pieces, piece) if one.strip())
