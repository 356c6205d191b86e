"""Route `solve`: an adapter in closed form from unlabeled probes, with no gradient descent.

Gauss-Newton first moves in a coordinate space wider than the adapter's rank, where a linearisation reaches further;
what it found is narrowed to the rank by its singular directions, and one more linearisation mends the cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from umaf import seeds
from umaf.adapters import lora_modules, weight_of
from umaf.errors import ProbeError
from umaf.generation.basis import Basis, narrowed, sensitive_basis
from umaf.generation.decisions import ask
from umaf.generation.goals import Goal, part
from umaf.generation.newton import gauss_newton
from umaf.models import Model

CHECK_SHARE = 0.2
CHECKED = 48
WIDTH = 3
NEEDED = 16


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
    iterations: int = 5,
    most: int = 256,
    seed: int = 0,
    truncate: bool = False,
) -> Solved:
    """Solve for an adapter that makes a target answer as wanted.

    Args:
        model: the target.
        goals: what it should answer, one goal per capability.
        rank: rank of every module's update.
        iterations: most linearisations of the target; the last one only mends the cut to the rank.
        most: probes of a goal that enter the linear systems.
        seed: decides which probes check the steps: a fifth of them, at most 48.
        truncate: cut probes that are longer than the target's window.

    Raises:
        ProbeError: too few probes, or one that does not fit.
    """
    fit, check = zip(*(split(goal, seed, most) for goal in goals), strict=True)
    asked = [ask(model, goal, truncate=truncate) for goal in fit]
    judges = [ask(model, goal, truncate=truncate) for goal in check]
    modules = lora_modules(model)
    sides = min(min(weight_of(model, name).shape) for name in modules)
    wide = sensitive_basis(asked, modules, min(WIDTH * rank, sides))
    found = gauss_newton(asked, judges, wide, iterations=max(1, iterations - 1))
    basis, cut = narrowed(wide, found.cores, rank)
    mended = gauss_newton(asked, judges, basis, iterations=min(1, iterations - 1), start=cut)
    return Solved(factors_of(basis, mended.cores), (*found.history, *mended.history))


def split(goal: Goal, seed: int, most: int = 256) -> tuple[Goal, Goal]:
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
    return part(goal, order[held : held + most]), part(goal, order[:held])


def factors_of(basis: Basis, cores: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Turn cores into balanced LoRA factors: dW = U R V^T = B A with B and A of equal norm.

    Returns:
        Module name -> (A [rank, in], B [out, rank]).
    """
    factors = {}
    for (name, (u, v)), core in zip(basis.items(), cores, strict=True):
        left, size, right = torch.linalg.svd(core.double())
        root = size.sqrt()
        factors[name] = (
            (root[:, None] * (right @ v.T.double())).float().contiguous(),
            ((u.double() @ left) * root).float().contiguous(),
        )
    return factors
