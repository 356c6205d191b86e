"""OPCM: experts added one after another, each only where the merge so far has no strong directions."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from umaf.merging.contract import Needs, Span, merge_method
from umaf.tensors.svd import singular_triplets


@merge_method(
    Needs(
        base="required",
        matrices=True,
        memory=3.0,
        otherwise="mean",
        batched=True,
        order_matters=True,
        equivariant=True,
    ),
    source="Tang et al., Merging Models on the Fly Without Retraining (OPCM), NeurIPS 2025, equations 5 to 9",
)
def opcm(
    deltas: Tensor,
    *,
    alpha: Annotated[float, Span(0, 1)] = 0.5,
    norm: Literal["tensor", "none"] = "tensor",
) -> Tensor:
    """Merge in the order of the models, adding of each delta what is orthogonal to the merge so far.

    With `M = U S V^T` what is merged already, a new delta loses, in the axes U and V, its whole diagonal and its block
    of the r largest directions, r being the first count whose share of the sum of singular values exceeds `alpha`.
    What is left has inner product 0 with M. The sum is then given the mean norm of the deltas seen.

    For experts that arrive over time: only the merge so far and one expert are needed. A stack in memory is merged
    tensor by tensor here; :mod:`umaf.merging.continual` keeps the state on disk, one expert at a time, with the norms
    of the whole model as published. The order matters; the paper shuffles it. Other tensors get the mean of the deltas.

    Args:
        deltas: `[model, *batch, out, in]`, in the order of arrival.
        alpha: share of the singular values whose directions are closed to new experts, 0 to 1. 0 takes away the
            diagonal only, 1 the whole space of M (the published code, at 1, falls back to 0 or not by rounding).
        norm: "tensor" gives each tensor the mean norm of its deltas; "none" leaves the sum as it is, about the square
            root of the number of experts larger.

    Returns:
        `[*batch, out, in]`.

    Example:
        >>> import torch
        >>> first, second = torch.diag(torch.tensor([2.0, 1.0])), torch.tensor([[5.0, 1.0], [0.0, 0.0]])
        >>> opcm(torch.stack([first, second]), norm="none").round(decimals=4).tolist()
        [[2.0, 1.0], [0.0, 1.0]]
    """
    merged = deltas[0].clone()
    for delta in deltas[1:]:
        merged += outside(delta, merged, alpha=alpha)
    if norm == "none":
        return merged
    wanted = torch.linalg.matrix_norm(deltas).mean(0)
    return merged * rescaling(wanted, torch.linalg.matrix_norm(merged))[..., None, None]


def outside(delta: Tensor, merged: Tensor, *, alpha: float) -> Tensor:
    """Take from a delta what lies in the strong directions of a merge, and its diagonal in all of them.

    Exact in the thin decomposition, without the square orthogonal matrices of the published code:
    `delta - U_r (U_r^T delta V_r) V_r^T - sum_{i > r} (u_i^T delta v_i) u_i v_i^T`.

    Args:
        delta: `[*batch, out, in]`.
        merged: `[*batch, out, in]`; where it is zero, the delta is given back.
        alpha: as in :func:`opcm`.

    Returns:
        `[*batch, out, in]`, orthogonal to `merged` as a vector.

    Example:
        >>> outside(torch.ones(2, 2), torch.eye(2), alpha=0.0).round(decimals=4).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    found = singular_triplets(merged)
    core = found.left.mT @ delta @ found.right.mT
    first = torch.arange(core.shape[-1]) < strong(found.values, alpha).unsqueeze(-1)
    block = first.unsqueeze(-1) & first.unsqueeze(-2)
    closed = block | torch.eye(core.shape[-1], dtype=torch.bool)
    return delta - found.left @ (core * closed) @ found.right


def strong(values: Tensor, alpha: float) -> Tensor:
    """Count the singular values before the one at which their share of the sum exceeds `alpha`; all of them for 1.

    Args:
        values: `[*batch, rank]`, falling.
        alpha: 0 to 1.

    Returns:
        `[*batch]` whole numbers.

    Example:
        >>> strong(torch.tensor([4.0, 3.0, 2.0, 1.0]), 0.5), strong(torch.tensor([4.0, 3.0]), 1.0)
        (tensor(1), tensor(2))
    """
    if alpha >= 1:
        return torch.full(values.shape[:-1], values.shape[-1])
    sums = values.double().cumsum(-1)
    return (sums <= alpha * sums[..., -1:]).sum(-1)


def rescaling(wanted: Tensor, norm: Tensor) -> Tensor:
    """Give the factor that brings a norm to the wanted one; 1 where there is nothing to scale.

    Example:
        >>> rescaling(torch.tensor(3.0), torch.tensor(2.0)), rescaling(torch.tensor(0.0), torch.tensor(0.0))
        (tensor(1.5000), tensor(1.))
    """
    return torch.where(norm > 0, wanted / norm.where(norm > 0, torch.ones_like(norm)), torch.ones_like(norm))
