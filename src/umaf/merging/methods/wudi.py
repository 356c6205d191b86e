"""WUDI: the delta that interferes least with each expert's own inputs, which its rows stand for."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import Tensor

from umaf.merging.contract import Needs, Span, merge_method
from umaf.tensors.flow import Gain, descended, filtered, inverse, relaxed

Filter = Literal["exp", "none", "participation"]
Solver = Literal["closed", "adam", "sgd"]
Start = Literal["sum", "mean", "zero"]
Norm = Literal["squared", "plain"]


@merge_method(
    Needs(
        base="required",
        matrices=True,
        memory=7.0,
        otherwise="mean",
        batched=True,
        equivariant=True,
        whole={"solver": "adam"},
        breaks={"same": "the start is a sum, and directions that the filter does not reach stay there"},
    ),
    source="Cheng et al., Whoever Started the Interference Should End It, ICML 2025, eq. 11; closed form: SWUDI, 2026",
)
def wudi(
    deltas: Tensor,
    *,
    filter: Filter = "exp",
    time: Annotated[float, Span(0)] = 300.0,
    keep: Annotated[float, Span(0, 1, open_low=True)] = 1.0,
    start: Start = "sum",
    norm: Norm = "squared",
    solver: Solver = "closed",
    steps: Annotated[int, Span(0)] = 300,
    rate: Annotated[float, Span(0)] = 1e-5,
    shape: tuple[int, int] | None = None,
) -> Tensor:
    """Merge by least interference: the rows of each delta stand for the inputs of its task, which X should treat alike.

    The rows of an expert's delta span the inputs that it was trained on, so they can stand in for data:

        min_X  sum_i |(X - delta_i) delta_i^T|^2 / |delta_i|^2,   started from sum_i delta_i.

    With `C = sum_i delta_i^T delta_i / |delta_i|^2` the gradient flow that is stopped at a time t is a filter on the
    eigenvalues of C, `1 - exp(-l t)`: one decomposition, no learning rate, and what Adam's 300 steps stand for. The
    full solution (`filter: none`) is worse than the stopped one: small eigenvalues are noise.

    Published settings: `time 300, keep 1` (IWUDI, 85.1 on 8 CLIP ViT-B/32 tasks), `time 1300, keep 0.65` (SWUDI, 85.6),
    `filter participation` (ASWUDI, 85.5), `time 300, keep 0.85` and a factor of about 1/N for language models.

    Other tensors get the mean of the deltas (the authors' image code leaves them at the base).

    Args:
        deltas: `[model, *batch, out, in]`.
        filter: "exp" stops the flow at `time`, "none" solves exactly, "participation" solves exactly in the
            directions that the participation ratio of the roots of the eigenvalues counts.
        time: t, for "exp".
        keep: share of the directions of the inputs that are moved, the largest eigenvalues first; the others stay
            at the start.
        start: "sum", "mean" or "zero" of the deltas.
        norm: "squared" divides the terms by |delta|^2, "plain" by |delta| (the authors' image code).
        solver: "closed", or "adam" or "sgd" (momentum 0.9), which descend as the published programs do and look at
            neither `filter` nor `keep`.
        steps: of the solver, where it descends.
        rate: its learning rate; Adam's depends on the absolute size of the deltas.
        shape: of the tensors that the rows stand for, where they are cores of factors.

    Returns:
        `[*batch, out, in]`.

    Example:
        >>> import torch
        >>> experts = torch.stack([torch.diag(torch.tensor([2.0, 0.0])), torch.diag(torch.tensor([0.0, 1.0]))])
        >>> wudi(experts).round(decimals=4).tolist()
        [[2.0, 0.0], [0.0, 1.0]]
    """
    origin = starting_point(deltas, start)
    weights = term_weights(deltas, norm)
    if solver != "closed":
        return descended(origin, deltas, deltas, weights, steps=steps, rate=rate, rule=solver)
    width = (shape or deltas.shape[-2:])[-1]
    return filtered(origin, deltas, deltas, weights, gain=gain_of(filter, time=time, keep=keep, width=width))


def starting_point(deltas: Tensor, start: Start) -> Tensor:
    """Give the matrix that the flow starts from.

    Example:
        >>> starting_point(torch.ones(4, 1, 1), "sum")
        tensor([[4.]])
    """
    if start == "zero":
        return torch.zeros_like(deltas[0])
    return deltas.sum(0) if start == "sum" else deltas.mean(0)


def term_weights(deltas: Tensor, norm: Norm) -> Tensor:
    """Give one over the (squared) Frobenius norm of each delta, float64; 0 for a delta of zero.

    Args:
        deltas: `[model, *batch, out, in]`.
        norm: "squared" or "plain".

    Example:
        >>> term_weights(torch.full((1, 2, 2), 2.0), "squared").tolist()
        [0.0625]
    """
    sizes = torch.linalg.matrix_norm(deltas.double())
    return inverse(sizes**2 if norm == "squared" else sizes)


def gain_of(filter: Filter, *, time: float, keep: float, width: int) -> Gain:
    """Give the gain of a filter, for :func:`umaf.tensors.flow.filtered`.

    Args:
        filter: as in :func:`wudi`.
        time: as there.
        keep: as there.
        width: number of inputs, of which `keep` is a share.

    Example:
        >>> gain_of("none", time=1, keep=0.5, width=2)(torch.tensor([4.0, 2.0]))
        tensor([0.2500, 0.0000])
    """
    rule = relaxed(time) if filter == "exp" else inverse

    def gain(values: Tensor) -> Tensor:
        count = torch.full_like(values[..., :1], math.ceil(keep * width))
        if filter == "participation":
            total = values.sum(-1, keepdim=True)
            ratio = values.sqrt().sum(-1, keepdim=True) ** 2 * inverse(total)
            count = torch.minimum(count, torch.ceil(ratio * (1 - 1e-12)))
        return rule(values) * (torch.arange(values.shape[-1], device=values.device) < count)

    return gain
