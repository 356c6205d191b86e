"""Fine-tune a whole model on a goal: how experts, the sources of transfers, are made."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from umaf import seeds
from umaf.generation.decisions import ask
from umaf.generation.goals import Goal
from umaf.generation.train import Schedule, optimise
from umaf.models import Model, bare, fresh_classifier

SCHEDULE = Schedule(steps=150, rate=1.5e-3, batch_size=16)


def finetune(
    base: Model, goal: Goal, *, schedule: Schedule = SCHEDULE, seed: int = 0, truncate: bool = False
) -> Model:
    """Train every weight of a copy of a model towards a goal.

    An encoder gets a classifier head of its own for the goal's labels; every other model learns to answer the prompt.

    Args:
        base: where it starts from; left as it was.
        goal: what it should answer, for instance from `labelled_goal`.
        schedule: how long and how fast.
        seed: of the new head, of dropout, and of the order of texts.
        truncate: cut texts that are longer than the model's window.

    Returns:
        The expert, in evaluation mode, asking for no gradients.

    Raises:
        ModelError: an encoder that cannot get a classifier head.
        ProbeError: a text does not fit the window.
        NumericalError: the loss became NaN or infinite.

    Example:
        >>> from umaf.generation.goals import labelled_goal
        >>> goal = labelled_goal(texts, "topic", ("art", "trade"), answers)  # doctest: +SKIP
        >>> finetune(open_model("zoo:bert-1m"), goal).labels  # doctest: +SKIP
        ('art', 'trade')
    """
    if base.kind == "encoder":
        model = fresh_classifier(base, goal.labels, seed=seed)
    else:
        model = replace(base, net=copy.deepcopy(bare(base.net)))
    model.net.requires_grad_(True).train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.derive(seed, "finetune", "dropout"))
        optimise([ask(model, goal, truncate=truncate)], schedule, seed=seed)
    model.net.requires_grad_(False).eval()
    return model
