"""How one list of predictions is scored against one list of answers.

Each metric takes the same two sequences, in the same order, and gives a share in [0, 1].
`matches` gives the per-text verdicts, which is what paired intervals are made of.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from umaf.errors import NumericalError


def matches(predictions: Sequence[str], answers: Sequence[str], *, casefold: bool = False) -> np.ndarray:
    """Say for each text whether its prediction is its answer, leading and trailing space aside.

    Args:
        predictions: what the model said, one per text.
        answers: what was right, in the same order.
        casefold: whether upper and lower case count as the same.

    Returns:
        Booleans, `[text]`.

    Raises:
        NumericalError: the two lists differ in length, or are empty.

    Example:
        >>> matches([" yes", "No"], ["yes", "no"]).tolist()
        [True, False]
    """
    if len(predictions) != len(answers) or not len(answers):
        raise NumericalError(
            f"A metric needs one prediction per answer and at least one of each, got "
            f"{len(predictions)} predictions for {len(answers)} answers; pass both lists whole."
        )
    said, right = ([w.strip() for w in words] for words in (predictions, answers))
    if casefold:
        said, right = ([w.casefold() for w in words] for words in (said, right))
    return np.array([a == b for a, b in zip(said, right, strict=True)], dtype=bool)


def accuracy(predictions: Sequence[str], answers: Sequence[str]) -> float:
    """Give the share of texts whose predicted label is the right one.

    Args:
        predictions: one label per text.
        answers: the right labels, in the same order.

    Returns:
        A share in [0, 1].

    Raises:
        NumericalError: the two lists differ in length, or are empty.

    Example:
        >>> accuracy(["good", "bad"], ["good", "good"])
        0.5
    """
    return float(matches(predictions, answers).mean())


def exact_match(predictions: Sequence[str], answers: Sequence[str], *, casefold: bool = False) -> float:
    """Give the share of texts whose written answer is exactly the right one.

    Args:
        predictions: one written answer per text.
        answers: the right answers, in the same order.
        casefold: whether upper and lower case count as the same.

    Returns:
        A share in [0, 1].

    Raises:
        NumericalError: the two lists differ in length, or are empty.

    Example:
        >>> exact_match(["Paris ", "rome"], ["Paris", "Rome"], casefold=True)
        1.0
    """
    return float(matches(predictions, answers, casefold=casefold).mean())


def macro_f1(predictions: Sequence[str], answers: Sequence[str]) -> float:
    """Give the mean over labels of F1, so that a rare label weighs as much as a common one.

    F1 of a label is `2 tp / (2 tp + fp + fn)`. The labels are those that occur in either list:
    a label that was only ever predicted wrongly counts as 0.

    Args:
        predictions: one label per text.
        answers: the right labels, in the same order.

    Returns:
        A share in [0, 1].

    Raises:
        NumericalError: the two lists differ in length, or are empty.

    Example:
        >>> round(macro_f1(["a", "a", "b"], ["a", "b", "b"]), 3)
        0.667
    """
    matches(predictions, answers)
    said = np.array([w.strip() for w in predictions])
    right = np.array([w.strip() for w in answers])
    scores = []
    for label in np.union1d(said, right):
        hits = np.sum((said == label) & (right == label))
        scores.append(2.0 * hits / (np.sum(said == label) + np.sum(right == label)))
    return float(np.mean(scores))
