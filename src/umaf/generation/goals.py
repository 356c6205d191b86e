"""What an adapter should make the target answer on the probes: a goal.

A goal is made from the source's answers alone. For a classification capability these are its probabilities over
labels, carried into the target through label words; for a function they are the answers that it writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from umaf.errors import ProbeError


@dataclass(frozen=True)
class Goal:
    """Wanted answers on probes.

    Attributes:
        texts: the probes.
        cue: the word before the answer in the target's prompt; None where answers go on with the text itself.
        labels: label words; empty for a function.
        wanted: log-probabilities over the labels, [text, label]; empty for a function.
        answers: the wanted answers of a function; empty for a classification.
        weight: how much this goal counts beside others in one adapter.
    """

    texts: tuple[str, ...]
    cue: str | None
    labels: tuple[str, ...]
    wanted: Float[Tensor, "text label"]
    answers: tuple[str, ...] = ()
    weight: float = 1.0

    @property
    def is_function(self) -> bool:
        """Whether answers are free text rather than labels."""
        return not self.labels


def label_goal(
    texts: Sequence[str],
    cue: str,
    labels: Sequence[str],
    wanted: Float[Tensor, "text label"],
    *,
    weight: float = 1.0,
) -> Goal:
    """Make the goal of a classification capability.

    Raises:
        ProbeError: the numbers do not fit the texts and labels.
    """
    if tuple(wanted.shape) != (len(texts), len(labels)):
        raise ProbeError(
            f"A goal needs one number for each of {len(texts)} probes and {len(labels)} labels; "
            f"found {list(wanted.shape)}; score the same probes with the same labels."
        )
    return Goal(tuple(texts), cue, tuple(labels), wanted.float().log_softmax(-1), (), weight)


def answer_goal(
    texts: Sequence[str], cue: str | None, answers: Sequence[str], *, weight: float = 1.0
) -> Goal:
    """Make the goal of a function: probes whose wanted answer is empty leave.

    Raises:
        ProbeError: no answer is left.
    """
    kept = [(text, answer) for text, answer in zip(texts, answers, strict=True) if answer.strip()]
    if not kept:
        raise ProbeError(
            f"A function was to be learned from {len(texts)} probes, but the source answered none of them; "
            "check that the probes show the capability, and the cue."
        )
    asked, answered = zip(*kept, strict=True)
    return Goal(asked, cue, (), torch.zeros(len(asked), 0), answered, weight)


def labelled_goal(texts: Sequence[str], cue: str, labels: Sequence[str], answers: Sequence[str]) -> Goal:
    """Make the goal that true answers give: what fine-tuning on labels aims at.

    Example:
        >>> labelled_goal(["fine"], "sentiment", ["bad", "good"], ["good"]).wanted.exp().round().tolist()
        [[0.0, 1.0]]
    """
    if not labels:
        return answer_goal(texts, cue, answers)
    truth = torch.tensor([list(labels).index(answer) for answer in answers])
    sure = torch.nn.functional.one_hot(truth, len(labels)).float() * 20
    return label_goal(texts, cue, labels, sure)


def part(goal: Goal, chosen: Sequence[int]) -> Goal:
    """Keep some of a goal's probes, in the order given."""
    return Goal(
        tuple(goal.texts[i] for i in chosen), goal.cue, goal.labels, goal.wanted[list(chosen)],
        tuple(goal.answers[i] for i in chosen) if goal.answers else (), goal.weight,
    )  # fmt: skip
