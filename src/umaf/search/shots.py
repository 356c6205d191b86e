"""A few labelled texts of a wanted task, and how well a model does on them."""

from __future__ import annotations

import torch

from umaf.errors import TaskError
from umaf.evaluation.evaluate import chosen_examples
from umaf.generation.decisions import ask, batches, decide, divergence
from umaf.generation.goals import Goal, labelled_goal
from umaf.models import Model
from umaf.tasks.task import Task

SHOTS = 10
BATCH = 64


def shots_of(task: Task, *, count: int = SHOTS, seed: int = 0) -> Goal:
    """Draw a few labelled training texts of a task.

    Raises:
        TaskError: a task that is no classification, or has no training texts.

    Example:
        >>> from umaf.tasks.door import load_task
        >>> len(shots_of(load_task("made/tense"), count=4).texts)
        4
    """
    if task.kind != "classification":
        raise TaskError(
            f'The task "{task.name}" was given for shots, but its answers are free text; name a classification.'
        )
    examples = chosen_examples(task, split="train", limit=count, seed=seed)
    texts, answers = [one.text for one in examples], [one.answer for one in examples]
    return labelled_goal(texts, task.cue, task.labels, answers)


@torch.no_grad()
def shot_score(model: Model, shots: Goal) -> tuple[float, float]:
    """Score a model on shots: the share that it answers rightly, then the mean log-likelihood of the right answers.

    Greater tuples are better; the second number tells apart what ten texts hardly do.
    """
    asked = ask(model, shots, truncate=True)
    parts = [decide(asked, rows) for rows in batches(asked, BATCH)]
    right = torch.cat([(one.logits.argmax(-1) == one.wanted.argmax(-1)).float()[:, 0] for one in parts])
    return float(right.mean()), -float(torch.cat([divergence(one) for one in parts]).mean())
