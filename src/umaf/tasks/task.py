"""What a task is: examples of text and answer, in three splits, and the prompt that asks for the answer.

A classification task answers with one of its label words; a function task answers with a short text of its
own. Both are asked in the same way (`prompt`), so one reader of answers serves every model and every task.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Example:
    """One text and the answer that is right for it.

    Args:
        text: what is asked about.
        answer: the answer, or one of several where `tests` judge it.
        tests: Python statements that pass when a program is right; a first one with "{answer}" in it makes the
            program out of an answer that is an expression.

    Example:
        >>> Example("the film was not bad at all", "positive").answer
        'positive'
    """

    text: str
    answer: str
    tests: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """A capability as data.

    Args:
        name: how the task is asked for, such as "made/sentiment".
        kind: "classification" (the answer is one of `labels`) or "function" (the answer is a short text).
        labels: the label words as they are said to a model; () for a function.
        cue: the word shown before the answer, such as "sentiment".
        train: examples to learn from.
        validation: examples to choose by.
        test: examples to measure with; never shown before.
        source: where the texts come from.
        licence: under which licence they are.

    Example:
        >>> few = (Example("hello there", "greeting"),)
        >>> Task("toy", "classification", ("greeting",), "intent", few, few, few, "here", "Apache-2.0").cue
        'intent'
    """

    name: str
    kind: Literal["classification", "function"]
    labels: tuple[str, ...]
    cue: str
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    source: str
    licence: str


def prompt(task_cue: str, text: str) -> str:
    r"""Write the question that a model is asked; the answer follows as " " + answer, ended by a line break.

    Args:
        task_cue: the word shown before the answer (`Task.cue`).
        text: the text that the answer is about.

    Example:
        >>> prompt("sentiment", "a fine film")
        'a fine film\nsentiment:'
    """
    return f"{text}\n{task_cue}:"
