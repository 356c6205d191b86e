"""Route `distill`: a bounded number of gradient steps of a LoRA on the source's answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from umaf.adapters import Factors, attach
from umaf.generation.decisions import ask, batches, decide, divergence
from umaf.generation.goals import Goal, part
from umaf.generation.solve import Solved, solve
from umaf.generation.train import Schedule, nothing, train_lora
from umaf.models import Model

BATCH = 64
STEPS = 140
RATE = 0.64
"""Learning rate times width: 5e-3 for a model of width 128, 1.6e-4 for one of 4096."""
SEEN = 64


def distill(
    model: Model,
    goals: Sequence[Goal],
    *,
    rank: int = 8,
    steps: int = STEPS,
    rate: float | None = None,
    iterations: int = 0,
    start: Factors | None = None,
    experts: bool = False,
    seed: int = 0,
    truncate: bool = False,
) -> Solved:
    """Train a LoRA on what the source answers to the probes.

    It begins as a fresh LoRA, or where a solve ends: on small models a solve takes as long as a hundred gradient
    steps, and those bring more.

    Args:
        model: the target; left as it was.
        goals: what it should answer, one goal per capability.
        rank: rank of every module's update.
        steps: gradient steps, of 16 probes each.
        rate: peak learning rate; `RATE` over the target's width when not given, because wide models need small steps.
        iterations: linearisations of a solve before the steps; 0 begins with a fresh LoRA.
        start: factors to begin with in place of a fresh LoRA, such as a generated adapter.
        experts: train the stacked experts of a mixture too, which are left alone otherwise.
        seed: of the fresh LoRA, and of the order of probes.
        truncate: cut probes that are longer than the target's window.

    Raises:
        ProbeError: too few probes for a solve, or one that does not fit.
        NumericalError: the loss became NaN or infinite.
    """
    begin = nothing(model, rank, seed, experts=experts)
    solved = Solved(begin if start is None else {**(begin if experts else {}), **start}, ())
    if iterations:
        found = solve(model, goals, rank=rank, iterations=iterations, seed=seed, truncate=truncate)
        solved = Solved({**begin, **found.factors}, found.history)
    schedule = Schedule(steps=steps, rate=RATE / model.width if rate is None else rate)
    factors = train_lora(model, goals, rank=rank, schedule=schedule, seed=seed, start=solved.factors)
    few = [part(goal, range(min(SEEN, len(goal.texts)))) for goal in goals]
    row = {
        "stage": "distill",
        "steps": steps,
        "on": f"the first {SEEN} probes, which it was trained on",
        "bare": divergence_from(model, few, truncate=truncate),
        "divergence": divergence_from(attach(model, factors), few, truncate=truncate),
    }
    return Solved(factors, (*solved.history, row))


def divergence_from(model: Model, goals: Sequence[Goal], *, truncate: bool = False) -> float:
    """Give the mean divergence of a model from its goals on all their probes, in nats, by the goals' weights."""
    total = weight = 0.0
    with torch.inference_mode():
        for goal in goals:
            one = ask(model, goal, truncate=truncate)
            parts = [divergence(decide(one, rows)) for rows in batches(one, BATCH)]
            total += goal.weight * float(torch.cat(parts).mean())
            weight += goal.weight
    return total / weight
