"""Karcher: the mean of models on a sphere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from umaf.merging.angles import gram, karcher_shares
from umaf.merging.contract import Needs, Passes, PerModel, Span, merge_method, once
from umaf.merging.parts import per_model, weighted_sum


def measure(
    passes: Passes, *, models: int, weight: PerModel = 1.0, max_iter: int = 10, tol: float = 1e-5
) -> dict[str, Tensor]:
    """Measure the angles, and give the `share` of each model, `[model]`.

    Example:
        >>> measure(once(torch.eye(2)), models=2)
        {'share': tensor([0.7071, 0.7071], dtype=torch.float64)}
    """
    shares = torch.tensor(per_model(weight, models), dtype=torch.float64)
    if float(shares.sum()) <= 0:
        shares = torch.ones_like(shares)
    return {"share": karcher_shares(gram(passes, models), shares, max_iter=max_iter, tol=tol)}


@merge_method(
    Needs(base="none", scope="element"),
    source="Karcher 1977, Riemannian center of mass and mollifier smoothing (gradient descent on the sphere)",
    measure=measure,
)
def karcher(
    stack: Float[Tensor, " model *shape"],
    *,
    weight: Annotated[PerModel, Span(0)] = 1.0,
    max_iter: Annotated[int, Span(0)] = 10,
    tol: Annotated[float, Span(0)] = 1e-5,
    measured: Mapping[str, Tensor] | None = None,
) -> Float[Tensor, "*shape"]:
    """Find the direction whose angles to all models are smallest in squares, at the models' mean length.

    `slerp` for several models of equal standing, without an order. For models of one base, whose directions nearly
    agree, it is the mean. Each tensor has its own direction; every tensor is merged by this rule.

        u_i = theta_i / |theta_i|;  u = sum_i w_i u_i, made a unit vector
        repeat: a_i = arccos(u . u_i);  T = sum_i w_i a_i / sin(a_i) (u_i - cos(a_i) u)
                u <- cos(|T|) u + sin(|T|) T / |T|
        out = u sum_i w_i |theta_i|

    All steps are taken on inner products, so the weights are read twice, whatever the number of steps. A tensor of
    zeros has no direction but counts in the mean length. Where directions cancel the mean of weights is taken.

    Args:
        stack: weights of the models.
        weight: of each model; only proportions matter.
        max_iter: most steps.
        tol: a step |T| shorter than this, in radians, ends the search.
        measured: `share` of each model in the sum, `[model]`, from `measure`; None measures this stack.

    Example:
        >>> karcher(torch.eye(3))
        tensor([0.5774, 0.5774, 0.5774])

    Source: Karcher: Riemannian center of mass and mollifier smoothing (1977); for weights, mergekit's karcher, which
    calculates in the dtype of the file and has equal weights only.
    """
    if measured is None:
        models = stack.shape[0]
        measured = measure(once(stack), models=models, weight=weight, max_iter=max_iter, tol=tol)
    return weighted_sum(stack, measured["share"])
