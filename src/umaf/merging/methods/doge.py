"""DOGE: one change for all deltas, found by descent outside the subspace that they share, then masked and scaled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from torch import Tensor

from umaf.merging.contract import Needs, Passes, Span, merge_method, once
from umaf.merging.methods.ties import counts
from umaf.merging.methods.tsv import share_of_rank
from umaf.merging.parts import thresholds
from umaf.tensors.flow import inverse
from umaf.tensors.svd import singular_triplets

Projection = Literal["gradient", "step", "none"]
_SCALED = "deltas are scaled to the norm `size` and masked"


def measure(passes: Passes, *, models: int, density: float = 0.3) -> dict[str, Tensor]:
    """Find the magnitude from which on an expert's entries are kept, `threshold` `[model]`.

    Example:
        >>> measure(once(torch.tensor([[1.0, 3.0, 2.0]])), models=1, density=0.4)
        {'threshold': tensor([2.])}
    """
    return {"threshold": thresholds(passes, lambda entries: counts([density] * models, entries, "code"))}


@merge_method(
    Needs(
        base="required",
        measure="mask",
        matrices=True,
        memory=9.0,
        otherwise="base",
        breaks={"single": _SCALED, "same": _SCALED},
    ),
    source="Wei et al., Modeling Multi-Task Model Merging as Adaptive Projective Gradient Descent, ICML 2025",
    measure=measure,
)
def doge(
    deltas: Tensor,
    *,
    size: Annotated[float, Span(0)] = 0.07,
    size_unit: Literal["norm", "median"] = "norm",
    subspace: Annotated[int, Span(1)] = 6,
    projection: Projection = "gradient",
    steps: Annotated[int, Span(0)] = 400,
    rate: Annotated[float, Span(0)] = 1e-4,
    rate_unit: Literal["entry", "rms"] = "entry",
    density: Annotated[float, Span(0, 1, open_low=True)] = 0.3,
    mask: Literal["model", "tensor"] = "model",
    measured: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Merge scaled deltas plus one shared change that makes the sum treat each expert's rows as the expert does.

    With `l_j = size / |delta_j|`, a change D that is the same for all experts is found by Adam so that

        sum_j sum_row ( <delta_j, delta_j - sum_i l_i (delta_i + D)>_row )^2

    gets small; the gradient's part in the subspace of left singular vectors that the experts share is taken away, so
    that what they have in common is kept. Then each `delta_j + D` is kept where delta_j is among its largest entries,
    and the result is `sum_j l_j mask_j (delta_j + D)`.

    The published program projects the gradient, which Adam's scaling of each entry undoes in good part: D still has
    a share in the closed subspace. `projection: step` projects each step, so that D has none. The published size and
    rate fit CLIP ViT-B/32; for other models `size_unit: median` with a size near 0.3, and `rate_unit: rms`, do not
    depend on how large the deltas are. Other tensors stay at the base.

    Args:
        deltas: `[model, out, in]`.
        size: norm that each delta is given in the sum; with "median", in medians of the norms of the deltas.
        size_unit: "norm" (published) or "median".
        subspace: the closed subspace has q / subspace directions, q the shorter side.
        projection: "gradient" (published), "step", or "none".
        steps: of Adam.
        rate: learning rate; an entry of D moves by at most steps * rate.
        rate_unit: "entry" takes the rate as it is, "rms" multiplies it by the root mean square of the deltas.
        density: share of the entries of each delta that are kept, above 0, at most 1.
        mask: the largest of the whole model (published), or of each tensor.
        measured: `threshold` `[model]`, from :func:`measure`; measured on this stack when None.

    Returns:
        `[out, in]`.

    Example:
        >>> import torch
        >>> doge(torch.eye(2)[None], size=2.0**0.5, steps=0, density=0.5).round(decimals=4).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    if measured is None:
        measured = measure(once(deltas), models=deltas.shape[0], density=density)
    norms = torch.linalg.matrix_norm(deltas)
    scales = inverse(norms) * (size if size_unit == "norm" else size * norms.median())
    if rate_unit == "rms":
        rate = rate * float(deltas.square().mean().sqrt())
    closed = (
        closed_subspace(deltas, subspace) if projection != "none" else deltas.new_zeros(deltas.shape[1], 0)
    )
    change = shared_change(deltas, scales, closed, steps=steps, rate=rate, hold=projection == "step")
    merged = torch.zeros_like(change)
    for delta, scale, smallest in zip(deltas, scales, measured["threshold"], strict=True):
        merged += scale * (delta + change) * (delta.abs() >= smallest)
    return merged


def closed_subspace(deltas: Tensor, subspace: int) -> Tensor:
    """Find the left directions that the experts share: the strongest of the main left vectors of all of them.

    Args:
        deltas: `[model, out, in]`.
        subspace: one direction in so many of the shorter side.

    Returns:
        `[out, shorter side / subspace]`, orthonormal or zero columns.

    Example:
        >>> closed_subspace(torch.eye(4)[None], 2).shape
        torch.Size([4, 2])
    """
    wanted = min(deltas.shape[1:]) // subspace
    main = singular_triplets(deltas, share_of_rank(deltas)).left
    if len(main) == 1:  # all of equal strength beside each other: the expert's own order decides
        return main[0, :, :wanted]
    return singular_triplets(torch.cat(tuple(main), dim=-1), wanted).left


def shared_change(
    deltas: Tensor, scales: Tensor, closed: Tensor, *, steps: int, rate: float, hold: bool
) -> Tensor:
    """Descend to the change that all deltas share.

    Args:
        deltas: `[model, out, in]`.
        scales: `[model]`.
        closed: `[out, rank]`, directions that gradients must not have.
        steps: of Adam.
        rate: learning rate.
        hold: take the closed directions from every step as well, so that the change has none.

    Returns:
        `[out, in]`.

    Example:
        >>> shared_change(torch.ones(1, 1, 2), torch.ones(1), torch.zeros(1, 0), steps=3, rate=0.1, hold=False)
        tensor([[0., 0.]])
    """
    change, first, second = (torch.zeros_like(deltas[0]) for _ in range(3))
    rows = deltas.transpose(0, 1).contiguous()
    total = scales.sum()
    wrong = (rows * (rows - (rows * scales[:, None]).sum(1, keepdim=True))).sum(-1, keepdim=True)
    for step in range(1, steps + 1):
        left = wrong - total * (rows @ change.unsqueeze(-1))
        gradient = (left.mT @ rows).squeeze(1).mul_(-2 * total)
        gradient -= closed @ (closed.mT @ gradient)
        first.lerp_(gradient, 0.1)
        second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        move = first / (second / (1 - 0.999**step)).sqrt_().add_(1e-8)
        if hold:
            move -= closed @ (closed.mT @ move)
        change.sub_(move, alpha=rate / (1 - 0.9**step))
    return change
