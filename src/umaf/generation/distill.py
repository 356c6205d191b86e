"""Route `distill`: the solved adapter, refined by a bounded number of gradient steps on the source's answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from umaf.adapters import attach
from umaf.generation.decisions import ask, batches, decide, divergence
from umaf.generation.goals import Goal
from umaf.generation.solve import Solved, solve
from umaf.generation.train import Schedule, fresh, nothing, train_lora
from umaf.models import Model

BATCH = 64
LABEL_STEPS = 100
# A start need not be good, only quick.
START_PROBES = 128
FUNCTION_STEPS = 150


def distill(
    model: Model,
    goals: Sequence[Goal],
    *,
    rank: int = 8,
    steps: int | None = None,
    rate: float = 5e-3,
    iterations: int = 2,
    seed: int = 0,
    truncate: bool = False,
) -> Solved:
    """Solve for an adapter, and train it on.

    A function is trained from a fresh LoRA: what a solve finds of it is far from working, and a worse start than none.

    Args:
        model: the target; left as it was.
        goals: what it should answer, one goal per capability.
        rank: rank of every module's update.
        steps: gradient steps; 100 when not given, 150 where a goal is a function.
        rate: peak learning rate.
        iterations: linearisations of the solve that the steps begin from; it need not be finished.
        seed: of the solve's split, and of the order of probes.
        truncate: cut probes that are longer than the target's window.

    Raises:
        ProbeError: too few probes, or one that does not fit.
        NumericalError: the loss became NaN or infinite.
    """
    written = any(goal.is_function for goal in goals)
    steps = steps or (FUNCTION_STEPS if written else LABEL_STEPS)
    if written:
        solved = Solved(nothing(model, rank, seed), ())
    else:
        solved = solve(
            model, goals, rank=rank, iterations=iterations, most=START_PROBES, seed=seed, truncate=truncate
        )
    start = alive(solved.factors, seed)
    factors = train_lora(
        model, goals, rank=rank, schedule=Schedule(steps=steps, rate=rate), seed=seed, start=start
    )
    row = {
        "stage": "distill",
        "steps": steps,
        "on": "all probes, which it was trained on",
        "bare": divergence_from(model, goals, truncate=truncate),
        "solved": divergence_from(attach(model, solved.factors), goals, truncate=truncate),
        "divergence": divergence_from(attach(model, factors), goals, truncate=truncate),
    }
    return Solved(factors, (*solved.history, row))


def alive(factors: dict[str, tuple[Tensor, Tensor]], seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Replace A where A and B are both 0: there no gradient reaches either.

    Example:
        >>> a, b = alive({"m": (torch.zeros(1, 2), torch.zeros(3, 1))}, 0)["m"]
        >>> bool((a != 0).all()), bool((b == 0).all())
        (True, True)
    """
    return {
        name: (a, b) if a.any() or b.any() else (fresh(a, seed, name), b) for name, (a, b) in factors.items()
    }


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
