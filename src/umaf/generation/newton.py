"""Gauss-Newton on the factors of a LoRA: a few linear solves instead of gradient descent.

At the present factors A and B the decisions' logits are linear in a small step of both: ``logits + J d``. With the
curvature H = diag(p) - p p^T of the cross-entropy at each decision, the step towards the wanted probabilities q solves
``(sum J^T H J + ridge I) d = sum J^T (q - p)`` (generalised Gauss-Newton: Schraudolph, Neural Computation 2002). Rows
are fewer than coordinates, so the system is solved from the side of the rows, where it is the kernel regression of
the tangent kernel (Jacot et al., 2018). The ridge follows Levenberg and Marquardt (Marquardt, 1963): of a weaker, the
same and a stronger one, the best on probes left out of the sums is taken. No label is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from umaf import seeds
from umaf.adapters import Factors, cores
from umaf.errors import NumericalError
from umaf.generation.decisions import Asked, Decisions, batches, decide, divergence
from umaf.generation.watch import watched

RIDGES = (0.3, 1.0, 3.0)
"""What the present ridge is multiplied with, tried side by side."""
WORSE = 10.0
"""What it is multiplied with where none of them helped."""
PATIENCE = 2
# A sure and wrong decision has almost no curvature and would ask for an endless step. The bound on the curvature of a
# decision between two (Boehning, 1992) keeps it at a few nats.
FLOOR = 0.25
CONTRASTS = 3
BATCH = 32


@dataclass(frozen=True)
class Solution:
    """Factors with what their search saw.

    Attributes:
        factors: module name -> (A [rank, in], B [out, rank]).
        history: one row per iteration: iteration, divergence on left-out probes, ridge.
    """

    factors: dict[str, tuple[Tensor, Tensor]]
    history: tuple[dict, ...]


def gauss_newton(
    fit: Sequence[Asked],
    check: Sequence[Asked],
    start: Factors,
    *,
    iterations: int,
    most: int | None = None,
    seed: int = 0,
) -> Solution:
    """Find factors that bring the target's decisions to the wanted ones.

    Args:
        fit: goals whose probes enter the sums.
        check: goals whose probes choose the ridge, and end the search when nothing improves.
        start: the factors to begin with; A or B of a module must not be all zeros.
        iterations: most linearisations.
        most: probes of a goal in one linear system, which takes those whose turn it is; all when not given.
        seed: of the order in which probes take turns.

    Returns:
        The best factors seen; those of the start where nothing improved on it.

    Raises:
        NumericalError: the target answers with NaN or infinity.
    """
    device = fit[0].model.device
    present = {name: (a.float().to(device), b.float().to(device)) for name, (a, b) in start.items()}
    best = mean_divergence(check, present)
    history = [{"iteration": 0, "divergence": best, "ridge": None}]
    turns = [_turns(len(one), most or len(one), seed) for one in fit]
    ridge, failed = 1.0, 0
    for iteration in range(1, iterations + 1):
        matrix, wanted = _system(fit, [next(turn) for turn in turns], present)
        gram = matrix @ matrix.T
        size = gram.diagonal().mean().clamp_min(1e-12) * torch.eye(len(gram), device=device)
        tried = []
        for strength in (factor * ridge for factor in RIDGES):
            step = matrix.T @ torch.linalg.solve(gram + strength * size, wanted)
            moved = _moved(present, step)
            tried.append((mean_divergence(check, moved), strength, moved))
        value, strength, moved = min(tried, key=lambda trial: trial[0])
        if value < best - 1e-6:
            best, ridge, present, failed = value, strength, moved, 0
            history.append({"iteration": iteration, "divergence": best, "ridge": ridge})
            continue
        ridge, failed = ridge * WORSE, failed + 1
        if failed == PATIENCE:
            break
    return Solution(present, tuple(history))


def mean_divergence(asked: Sequence[Asked], factors: Factors, *, batch_size: int = 128) -> float:
    """Mean divergence of the target with some factors from its goals, weighted by the goals' weights."""
    total = weight = 0.0
    with torch.inference_mode():
        for one in asked:
            with cores(one.model, *as_cores(factors)):
                parts = [divergence(decide(one, rows)) for rows in batches(one, batch_size)]
            total += one.goal.weight * float(torch.cat(parts).mean())
            weight += one.goal.weight
    return total / weight


def as_cores(factors: Factors) -> tuple[Mapping[str, tuple[Tensor, Tensor]], Tensor]:
    """Factors as frames (B, A^T) with cores that are the identity, so that hooks can add them.

    Example:
        >>> frames, values = as_cores({"m": (torch.zeros(2, 5), torch.zeros(3, 2))})
        >>> [list(side.shape) for side in frames["m"]], list(values.shape)
        ([[3, 2], [5, 2]], [1, 2, 2])
    """
    first = next(iter(factors.values()))[0]
    rank = first.shape[0]
    frames = {name: (b, a.T) for name, (a, b) in factors.items()}
    return frames, torch.eye(rank, device=first.device).expand(len(factors), rank, rank)


def _turns(count: int, most: int, seed: int) -> Iterator[list[int]]:
    """Give `most` probes at a time, every probe once before one comes again."""
    draw = np.random.default_rng(seeds.derive(seed, "gauss-newton", "turns"))
    most = min(most, count)
    while True:
        order = draw.permutation(count).tolist()
        for start in range(0, count - most + 1, most):
            yield order[start : start + most]


def _system(
    fit: Sequence[Asked], turns: Sequence[Sequence[int]], present: Factors
) -> tuple[Float[Tensor, "row coordinate"], Float[Tensor, " row"]]:
    """Linearise every goal's probes whose turn it is, weighted, as rows of plain least squares."""
    found, wanted = [], []
    for one, chosen in zip(fit, turns, strict=True):
        scale = (one.goal.weight / len(chosen)) ** 0.5
        for part in batches(one, BATCH, chosen):
            rows, residual = linearised(one, part, present)
            found.append(scale * rows)
            wanted.append(scale * residual)
    residual = torch.cat(wanted)
    if not torch.isfinite(residual).all():
        raise NumericalError(
            f'"{fit[0].model.name}" answers the probes with NaN or infinity; open it in float32, and check its weights.'
        )
    return torch.cat(found), residual


def linearised(
    one: Asked, chosen: Sequence[int], present: Factors
) -> tuple[Float[Tensor, "row coordinate"], Float[Tensor, " row"]]:
    """Linearise the decisions on some probes, in every module's A and B, as rows of plain least squares.

    With H = L L^T, rows L^T J and residuals L^+ (q - p) make the sums. Of a probe with more than `CONTRASTS`
    dimensions to decide (choices of all its steps) only that many directions are taken: that of the residual, so that
    the slope is exact, and random ones across it, scaled so that the curvature is right on average.

    Returns:
        Rows over the entries of A, then B, module after module; and the residuals.
    """
    names = list(present)
    with cores(one.model, *as_cores(present)), watched(one.model, names, graph=True) as seen:
        decisions = decide(one, chosen)
    root, residual = _root(decisions)
    directions = _directions(residual.flatten(1), seeds.derive(0, "contrasts", *chosen[:4]))
    contrasts = torch.einsum("nscd,nsdk->nsck", root, directions.unflatten(1, residual.shape[1:]))
    outputs = [seen[name][1] for name in names]
    rows = []
    for which in range(contrasts.shape[-1]):
        value = (decisions.logits * contrasts[..., which]).sum()
        gradients = torch.autograd.grad(value, outputs, retain_graph=True, allow_unused=True)
        parts = [
            _by_text(len(chosen), seen[name][0], gradient, present[name])
            for name, gradient in zip(names, gradients, strict=True)
        ]
        rows.append(torch.cat(parts, dim=1))
    return torch.cat(rows), (directions.mT @ residual.flatten(1)[..., None])[..., 0].T.flatten()


def _by_text(
    texts: int, x: Tensor | None, gradient: Tensor | None, pair: tuple[Tensor, Tensor]
) -> Float[Tensor, "text coordinate"]:
    """Turn inputs x and output gradients g of a module into slopes of A, (g B)^T x, and of B, g^T (x A^T)."""
    a, b = pair
    if x is None or gradient is None:
        return a.new_zeros(texts, a.numel() + b.numel())
    # Some modules see [text * token, in]; the text is the slow axis of their rows.
    x = x.reshape(texts, -1, x.shape[-1]).float()
    g = gradient.reshape(texts, -1, gradient.shape[-1]).float()
    return torch.cat([((g @ b).mT @ x).flatten(1), (g.mT @ (x @ a.T)).flatten(1)], dim=1)


def _moved(present: Factors, step: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Add a step, laid out as the rows of `linearised`, to factors."""
    sizes = [factor.numel() for pair in present.values() for factor in pair]
    parts = iter(step.split(sizes))
    return {
        name: (a + next(parts).view_as(a), b + next(parts).view_as(b)) for name, (a, b) in present.items()
    }


def _root(
    decisions: Decisions,
) -> tuple[Float[Tensor, "text step choice dim"], Float[Tensor, "text step dim"]]:
    """A root L of each decision's curvature, and L^+ (q - p), without the constant direction, which has none.

    Both are 0 for steps that do not exist.
    """
    p, q = decisions.logits.detach().softmax(-1), decisions.wanted
    width = p.shape[-1]
    curvature = torch.diag_embed(p) - p[..., :, None] * p[..., None, :]
    curvature = curvature + FLOOR * (torch.eye(width, device=p.device) - 1 / width)
    size, vectors = torch.linalg.eigh(curvature)
    exists = decisions.mask[..., None].to(p.dtype)
    size, vectors = size[..., 1:].clamp_min(1e-6), vectors[..., 1:]
    residual = size.rsqrt() * (vectors.mT @ (q - p)[..., None])[..., 0] * exists
    return vectors * size.sqrt()[..., None, :] * exists[..., None], residual


def _directions(residual: Float[Tensor, "text dim"], seed: int) -> Float[Tensor, "text dim taken"]:
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
