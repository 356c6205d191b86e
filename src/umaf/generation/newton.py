"""Gauss-Newton on the cores of a target: a few linear solves instead of gradient descent.

At the present cores R, the decisions' logits are linear in a small step: ``logits(R + d) = logits(R) + J d``. With
the curvature H = diag(p) - p p^T of the cross-entropy at each decision, the step that leads to the wanted
probabilities q solves ``(sum J^T H J + ridge I) d = sum J^T (q - p) - ridge R`` (generalised Gauss-Newton: Schraudolph,
Neural Computation 2002; Levenberg-Marquardt ridge). Ridge and step length are those that lower the divergence on
probes left out of the sums; no label is used. The system is solved from its smaller side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from umaf import seeds
from umaf.adapters.cores import cores
from umaf.generation.basis import Basis
from umaf.generation.decisions import Asked, Decisions, batches, decide, divergence

RIDGES = (1e-1, 1.0, 10.0, 100.0)
# A whole step overshoots nearly always, because softmax bends; shorter ones are tried where half a step does.
STEP, SHORTER = 0.5, (0.2, 0.08)
CURVATURE_FLOOR = 0.02
CONTRASTS = 3


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
        solve = _system(fit, basis, present, batch_size)
        tried = [_try(check, basis, present, solve(ridge), (ridge, STEP)) for ridge in RIDGES]
        for step in SHORTER:
            if min(tried, key=_value)[0] < best:
                break
            tried += [_try(check, basis, present, solve(ridge), (ridge, step)) for ridge in RIDGES[1:]]
        value, moved, (ridge, step) = min(tried, key=_value)
        if not value < best - 1e-6:
            break
        best, present = value, moved
        gained = history[-1]["divergence"] - best
        history.append({"iteration": iteration, "divergence": best, "ridge": ridge, "step": step})
        if gained < 0.005 * history[0]["divergence"]:
            break
    return Solution(present, tuple(history))


def _value(trial: tuple[float, Tensor, tuple[float, float]]) -> float:
    return trial[0]


def _try(
    check: Sequence[Asked], basis: Basis, present: Tensor, move: Tensor, how: tuple[float, float]
) -> tuple[float, Tensor, tuple[float, float]]:
    """Take a step of a ridge and a length: its divergence, where it leads, and how it was made."""
    moved = present + how[1] * move
    return mean_divergence(check, basis, moved), moved, how


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


def _system(
    fit: Sequence[Asked], basis: Basis, present: Tensor, batch_size: int
) -> Callable[[float], Float[Tensor, "module rank rank"]]:
    """Build the normal equations, from the side of the coordinates or from that of the decisions.

    Returns:
        The step for a ridge, relative to the mean diagonal of the curvature in coordinates.
    """
    rows, wanted = [], []
    for one in fit:
        scale = (one.goal.weight / len(one)) ** 0.5
        for chosen in batches(one, batch_size):
            row, residual = _linearise(one, chosen, basis, present)
            rows.append(scale * row)
            wanted.append(scale * residual)
    matrix, here = torch.cat(rows), present.flatten()
    # The prior pulls the sum R + d to zero: solve for the sum, then take R off.
    target = torch.cat(wanted) + matrix @ here
    primal = matrix.shape[1] <= matrix.shape[0]
    gram = matrix.T @ matrix if primal else matrix @ matrix.T
    size = (gram.diagonal().sum() / matrix.shape[1]).clamp_min(1e-12)
    identity = torch.eye(len(gram), device=gram.device)

    def move(ridge: float) -> Tensor:
        factor = torch.linalg.cholesky(gram + ridge * size * identity)
        if primal:
            total = torch.cholesky_solve((matrix.T @ target)[:, None], factor)[:, 0]
        else:
            total = matrix.T @ torch.cholesky_solve(target[:, None], factor)[:, 0]
        return (total - here).view_as(present)

    return move


def _linearise(
    one: Asked, chosen: Sequence[int], basis: Basis, present: Tensor
) -> tuple[Float[Tensor, "row coordinate"], Float[Tensor, " row"]]:
    """Linearise every decision on some probes as rows of plain least squares.

    With H = L L^T, rows L^T J and residuals L^+ (q - p) make the sums. Of a decision with more than `CONTRASTS` + 1
    choices, only that many directions are taken: that of the residual, so that the slope is exact, and random ones
    across it, scaled so that the curvature is right on average.
    """
    values = present.expand(len(chosen), *present.shape).clone().requires_grad_()
    with cores(one.model, basis, values):
        decisions = decide(one, chosen)
    root, residual = _root(decisions)
    directions = _directions(residual, seeds.derive(0, "contrasts", *chosen[:4]))
    contrasts = root @ directions
    rows, wanted = [], (directions.mT @ residual[..., None])[..., 0]
    for step in range(decisions.logits.shape[1]):
        for which in range(directions.shape[-1]):
            value = (decisions.logits[:, step] * contrasts[:, step, :, which]).sum()
            (gradient,) = torch.autograd.grad(value, values, retain_graph=True)
            rows.append(gradient.flatten(1)[decisions.mask[:, step]])
    order = [wanted[decisions.mask[:, step], step].T.flatten() for step in range(wanted.shape[1])]
    return torch.cat(rows), torch.cat(order)


def _root(
    decisions: Decisions,
) -> tuple[Float[Tensor, "text step choice dim"], Float[Tensor, "text step dim"]]:
    """A root L of each decision's curvature, and L^+ (q - p), without the constant direction, which has none."""
    p, q = decisions.logits.detach().softmax(-1), decisions.wanted
    width = p.shape[-1]
    curvature = torch.diag_embed(p) - p[..., :, None] * p[..., None, :]
    # A sure and wrong decision has almost no curvature, and would ask for an endless step.
    curvature = curvature + CURVATURE_FLOOR * (torch.eye(width, device=p.device) - 1 / width)
    size, vectors = torch.linalg.eigh(curvature)
    size, vectors = size[..., 1:].clamp_min(1e-6), vectors[..., 1:]
    residual = size.rsqrt() * (vectors.mT @ (q - p)[..., None])[..., 0]
    return vectors * size.sqrt()[..., None, :], residual


def _directions(residual: Float[Tensor, "text step dim"], seed: int) -> Float[Tensor, "text step dim taken"]:
    """Orthogonal directions, the residual's first; all of them where they are few."""
    dim = residual.shape[-1]
    taken = min(CONTRASTS, dim)
    draw = torch.Generator().manual_seed(seed)
    start = torch.randn(*residual.shape, taken, generator=draw).to(residual.device)
    start[..., 0] = residual + 1e-6 * start[..., 0]
    directions = torch.linalg.qr(start).Q
    if taken < dim:
        directions[..., 1:] *= ((dim - 1) / (taken - 1)) ** 0.5
    return directions
