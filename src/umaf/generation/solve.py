"""Route `solve`: an adapter from unlabeled probes by linear systems, with no gradient descent.

A fresh LoRA, which changes nothing, is moved by Gauss-Newton: the target's answers are linearised in all entries of A
and B, one regularised linear system gives the step to the source's answers, and the next linearisation starts there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from umaf import seeds
from umaf.errors import ProbeError
from umaf.generation.decisions import ask
from umaf.generation.goals import Goal, part
from umaf.generation.newton import gauss_newton
from umaf.generation.train import nothing
from umaf.models import Model

CHECK_SHARE = 0.2
CHECKED = 48
NEEDED = 16
ITERATIONS, MOST = 12, 128
# Written answers need more linearisations, and all probes in each: what to copy from where is many changes in a row.
WRITTEN_ITERATIONS, WRITTEN_MOST = 16, 288


@dataclass(frozen=True)
class Solved:
    """Factors with what their search saw."""

    factors: dict[str, tuple[Tensor, Tensor]]
    history: tuple[dict, ...]


def solve(
    model: Model,
    goals: Sequence[Goal],
    *,
    rank: int = 8,
    iterations: int | None = None,
    most: int | None = None,
    seed: int = 0,
    truncate: bool = False,
) -> Solved:
    """Solve for an adapter that makes a target answer as wanted.

    Args:
        model: the target; left as it was.
        goals: what it should answer, one goal per capability.
        rank: rank of every module's update.
        iterations: most linearisations of the target; 12 when not given, 16 where a goal is a function.
        most: probes of a goal in one linear system; 128 when not given, 288 where a goal is a function. Probes
            take turns.
        seed: of the fresh LoRA, of turns, and of which probes check the steps: a fifth of them, at most 48.
        truncate: cut probes that are longer than the target's window.

    Raises:
        ProbeError: too few probes, or one that does not fit.
        NumericalError: the target answers with NaN or infinity.
    """
    written = any(goal.is_function for goal in goals)
    fit, check = zip(*(split(goal, seed) for goal in goals), strict=True)
    found = gauss_newton(
        [ask(model, goal, truncate=truncate) for goal in fit],
        [ask(model, goal, truncate=truncate) for goal in check],
        nothing(model, rank, seed),
        iterations=iterations or (WRITTEN_ITERATIONS if written else ITERATIONS),
        most=most or (WRITTEN_MOST if written else MOST),
        seed=seed,
    )
    factors = {name: (a.cpu().contiguous(), b.cpu().contiguous()) for name, (a, b) in found.factors.items()}
    return Solved(factors, found.history)


def split(goal: Goal, seed: int) -> tuple[Goal, Goal]:
    """Part a goal's probes into those that are fitted and those that check the fit.

    Raises:
        ProbeError: fewer probes than a fit needs.
    """
    count = len(goal.texts)
    if count < NEEDED:
        raise ProbeError(
            f"An adapter for {goal.cue!r} needs at least {NEEDED} probes, because a fifth of them checks the fit; "
            f"found {count}; add texts like those the capability is for."
        )
    order = np.random.default_rng(seeds.derive(seed, "solve", "check", goal.cue)).permutation(count).tolist()
    held = min(max(4, round(CHECK_SHARE * count)), CHECKED)
    return part(goal, order[held:]), part(goal, order[:held])
