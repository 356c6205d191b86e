"""Gauss-Newton on the cores of a target: a few linear solves instead of gradient descent.

At the present cores R, the decisions' logits are linear in a small step: ``logits(R + d) = logits(R) + J d``. With
the curvature H = diag(p) - p p^T of the cross-entropy at each decision, the step that leads to the wanted
probabilities q solves ``(sum J^T H J + ridge I) d = sum J^T (q - p) - ridge R`` (generalised Gauss-Newton: Schraudolph,
Neural Computation 2002; Levenberg-Marquardt ridge). Ridge and step length are those that lower the divergence on
probes left out of the sums; no label is used. The system is solved from its smaller side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from umaf.adapters.cores import cores
from umaf.generation.basis import Basis
from umaf.generation.decisions import Asked, batches, decide, divergence

RIDGES = (1e-2, 1e-1, 1.0, 10.0, 100.0)
STEPS = (1.0, 0.5)
CURVATURE_FLOOR = 0.02


@dataclass(frozen=True)
class Solution:
    """Cores with what their search saw.

    Attributes:
        cores: [module, rank, rank], in the order of the basis.
        history: one row per iteration: iteration, divergence on left-out probes, ridge, step.
    """

    cores: Float[Tensor, "module rank rank"]
    history: tuple[dict, ...]


def gauss_newton(
    fit: Sequence[Asked],
    check: Sequence[Asked],
    basis: Basis,
    *,
    iterations: int = 5,
    start: Float[Tensor, "module rank rank"] | None = None,
    batch_size: int = 64,
) -> Solution:
    """Find cores that bring the target's decisions to the wanted ones.

    Args:
        fit: goals whose probes enter the sums.
        check: goals whose probes choose ridge and step, and end the search when nothing improves.
        basis: the directions.
        iterations: most linearisations.
        start: cores to begin with; zeros, the bare target, when not given.
        batch_size: probes in one linearisation; all of them enter one system.

    Returns:
        The best cores seen; those of the start where nothing improved on it.
    """
    rank = next(iter(basis.values()))[0].shape[1]
    device = fit[0].model.device
    present = torch.zeros(len(basis), rank, rank, device=device) if start is None else start
    best = mean_divergence(check, basis, present)
    history = [{"iteration": 0, "divergence": best, "ridge": None, "step": None}]
    for iteration in range(1, iterations + 1):
        gram, slope, solve = _system(fit, basis, present, batch_size)
        found = None
        for ridge in RIDGES:
            move = solve(gram, slope, ridge, present.flatten()).view_as(present)
            for step in STEPS:
                value = mean_divergence(check, basis, present + step * move)
                if value < best - 1e-6:
                    best, found = value, (present + step * move, ridge, step)
        if found is None:
            break
        gained = history[-1]["divergence"] - best
        present = found[0]
        history.append({"iteration": iteration, "divergence": best, "ridge": found[1], "step": found[2]})
        if gained < 0.01 * history[0]["divergence"]:
            break
    return Solution(present, tuple(history))


def mean_divergence(asked: Sequence[Asked], basis: Basis, values: Tensor, *, batch_size: int = 128) -> float:
    """Mean divergence of the target with some cores from its goals, weighted by the goals' weights."""
    total = weight = 0.0
    with torch.inference_mode():
        for one in asked:
            with cores(one.model, basis, values):
                parts = [divergence(decide(one, rows)) for rows in batches(one, batch_size)]
            total += one.goal.weight * float(torch.cat(parts).mean())
            weight += one.goal.weight
    return total / weight


def _system(fit: Sequence[Asked], basis: Basis, present: Tensor, batch_size: int):
    """Build the normal equations, from the side of the coordinates or from that of the decisions."""
    rows, residuals = [], []
    for one in fit:
        scale = (one.goal.weight / len(one)) ** 0.5
        for chosen in batches(one, batch_size):
            jacobian, root, residual = _linearise(one, chosen, basis, present)
            # H = L L^T, so rows L^T J and residuals L^+ (q - p) make the sums plain least squares.
            rows.append(scale * (root.transpose(-1, -2) @ jacobian))
            residuals.append(scale * residual)
    matrix, target = torch.cat(rows).flatten(0, 1), torch.cat(residuals).flatten()
    primal = matrix.shape[1] <= matrix.shape[0]
    gram = matrix.T @ matrix if primal else matrix @ matrix.T
    size = gram.diagonal().mean().clamp_min(1e-12) if primal else gram.diagonal().sum() / matrix.shape[1]

    def solve(gram: Tensor, _slope: Tensor, ridge: float, here: Tensor) -> Tensor:
        damped = gram + ridge * size * torch.eye(len(gram), device=gram.device)
        factor = torch.linalg.cholesky(damped)
        # The prior pulls the sum R + d to zero: solve for the sum, then take R off.
        wanted = target + matrix @ here
        if primal:
            total = torch.cholesky_solve((matrix.T @ wanted)[:, None], factor)[:, 0]
        else:
            total = matrix.T @ torch.cholesky_solve(wanted[:, None], factor)[:, 0]
        return total - here

    return gram, target, solve


def _linearise(
    one: Asked, chosen: Sequence[int], basis: Basis, present: Tensor
) -> tuple[
    Float[Tensor, "row choice coordinate"], Float[Tensor, "row choice choice"], Float[Tensor, "row choice"]
]:
    """Jacobian, square root of the curvature, and whitened residual of every decision on some probes."""
    values = present.expand(len(chosen), *present.shape).clone().requires_grad_()
    with cores(one.model, basis, values):
        decisions = decide(one, chosen)
    # Only differences between choices count: against the last one, its own row is zero and costs nothing.
    logits = decisions.logits - decisions.logits[..., -1:]
    _, steps, width = logits.shape
    jacobian = values.new_zeros(len(chosen), steps, width, present.numel())
    for step in range(steps):
        for choice in range(width - 1):
            (gradient,) = torch.autograd.grad(logits[:, step, choice].sum(), values, retain_graph=True)
            jacobian[:, step, choice] = gradient.flatten(1)
    jacobian = jacobian[decisions.mask]
    p, q = logits.detach().softmax(-1)[decisions.mask], decisions.wanted[decisions.mask]
    curvature = torch.diag_embed(p) - p[..., :, None] * p[..., None, :]
    centred = torch.eye(width, device=p.device) - 1 / width
    # A sure and wrong decision has almost no curvature, and would ask for an endless step.
    values_, vectors = torch.linalg.eigh(curvature + CURVATURE_FLOOR * centred)
    root = vectors * values_.clamp_min(0).sqrt()[..., None, :]
    inverse = torch.where(values_ > 1e-6, values_.clamp_min(1e-6).rsqrt(), 0.0)
    residual = inverse * (vectors.transpose(-1, -2) @ (q - p)[..., None])[..., 0]
    return jacobian, root, residual
