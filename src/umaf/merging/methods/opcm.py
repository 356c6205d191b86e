"""OPCM: experts added one after another, each only where the merge so far has no strong directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

import torch
from torch import Tensor

from umaf.merging.contract import Needs, Passes, Span, merge_method
from umaf.merging.parts import squares
from umaf.tensors.svd import singular_triplets

Norm = Literal["model", "tensor", "none"]


def measure(passes: Passes, *, models: int, alpha: float = 0.5, norm: Norm = "model") -> dict[str, Tensor]:
    """Find the factor that gives the merge of all tensors the mean norm of the models' deltas: `factor` `[]`.

    Every matrix is merged for it, and once more for the result.

    Example:
        >>> from umaf.merging.contract import once
        >>> one, other = torch.diag(torch.tensor([2.0, 0.0])), torch.diag(torch.tensor([0.0, 1.0]))
        >>> round(float(measure(once(torch.stack([one, other])), models=2)["factor"]), 4)
        0.6708
    """
    if norm == "none":
        return {}
    every = cast(Any, passes)
    own, whole = torch.zeros(models, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for _, stack in every.matrices():
        own += squares(stack.flatten(1))
        whole += squares(added_up(stack, alpha).reshape(1, -1))[0]
    for _, chunk in every.others():
        own += squares(chunk)
        whole += squares(chunk.sum(0, keepdim=True))[0]
    return {"factor": rescaling(own.sqrt().mean(), whole.sqrt())}


def sums(
    deltas: Tensor,
    *,
    alpha: float = 0.5,
    norm: Norm = "model",
    measured: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Add up the deltas of a tensor that is no matrix, and scale the sum as the rest.

    Example:
        >>> sums(torch.ones(4, 1), norm="none"), sums(torch.ones(4, 1))
        (tensor([4.]), tensor([1.]))
    """
    total = deltas.sum(0)
    if norm == "none":
        return total
    if measured:
        return total * float(measured["factor"])
    own, whole = squares(deltas.flatten(1)).sqrt().mean(), squares(total.reshape(1, -1))[0].sqrt()
    return total * float(rescaling(own, whole))


@merge_method(
    Needs(
        base="required",
        measure="norm",
        matrices=True,
        memory=3.0,
        otherwise="sum",
        batched=True,
        order_matters=True,
        equivariant=True,
    ),
    source="Tang et al., Merging Models on the Fly Without Retraining (OPCM), NeurIPS 2025, equations 5 to 9",
    measure=measure,
    others=sums,
)
def opcm(
    deltas: Tensor,
    *,
    alpha: Annotated[float, Span(0, 1)] = 0.5,
    norm: Norm = "model",
    measured: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Merge in the order of the models, adding of each delta what is orthogonal to the merge so far.

    With `M = U S V^T` what is merged already, a new delta loses, in the axes U and V, its whole diagonal and its block
    of the r largest directions, r being the first count whose share of the sum of singular values exceeds `alpha`.
    What is left has inner product 0 with M. Tensors that are no matrices of layers are added up as they are. The sum of
    the whole model is then given the mean norm of the models' deltas.

    For experts that arrive over time: only the merge so far and one expert are needed. A stack in memory is merged
    tensor by tensor here, twice, since the norm of the whole is known only after the last;
    :mod:`umaf.merging.continual` keeps the state on disk, one expert at a time. The order matters; the paper shuffles
    it.

    Args:
        deltas: `[model, *batch, out, in]`, in the order of arrival.
        alpha: share of the singular values whose directions are closed to new experts, 0 to 1. 0 takes away the
            diagonal only, 1 the whole space of M (the published code, at 1, falls back to 0 or not by rounding).
        norm: "model" gives the merge the mean norm of the whole models' deltas, as published; "tensor" gives each
            tensor that of its own deltas, in one pass; "none" leaves the sum as it is, about the square root of the
            number of experts larger.
        measured: `factor` `[]`, from :func:`measure`; None takes this stack for the whole model.

    Returns:
        `[*batch, out, in]`.

    Example:
        >>> import torch
        >>> first, second = torch.diag(torch.tensor([2.0, 1.0])), torch.tensor([[5.0, 1.0], [0.0, 0.0]])
        >>> opcm(torch.stack([first, second]), norm="none").round(decimals=4).tolist()
        [[2.0, 1.0], [0.0, 1.0]]
    """
    merged = added_up(deltas, alpha)
    if norm == "none":
        return merged
    if measured:
        return merged * float(measured["factor"])
    wanted = torch.linalg.matrix_norm(deltas).mean(0)
    return merged * rescaling(wanted, torch.linalg.matrix_norm(merged))[..., None, None]


def added_up(deltas: Tensor, alpha: float) -> Tensor:
    """Add each delta's part outside the merge so far, in order.

    Args:
        deltas: `[model, *batch, out, in]`.
        alpha: as in :func:`opcm`.

    Returns:
        `[*batch, out, in]`.

    Example:
        >>> added_up(torch.eye(2).expand(3, 2, 2), 0.5).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    merged = deltas[0].clone()
    for delta in deltas[1:]:
        merged += outside(delta, merged, alpha=alpha)
    return merged


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
