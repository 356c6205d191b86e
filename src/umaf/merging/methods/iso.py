"""Isotropic merging: the sum of the deltas with a flat spectrum, and its form with task-specific directions."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from umaf.merging.contract import Needs, PerModel, Span, as_column, merge_method
from umaf.tensors.polar import polar
from umaf.tensors.svd import Triplets, singular_triplets

_FLAT = "all singular values of the result are made equal"
_NEEDS = Needs(
    base="required",
    matrices=True,
    otherwise="mean",
    batched=True,
    memory=8.0,
    equivariant=True,
    breaks={"single": _FLAT, "same": _FLAT},
)
_SOURCE = "Marczak et al., No Task Left Behind: Isotropic Model Merging, ICML 2025"


@merge_method(_NEEDS, source=f"{_SOURCE}, section 4.1")
def iso_c(
    deltas: Tensor,
    *,
    weight: PerModel = 1.0,
    mean: Literal["rank", "all"] = "rank",
    shape: tuple[int, int] | None = None,
) -> Tensor:
    """Merge by the isotropic sum: the deltas are added, and every singular value becomes their mean.

    With `U S V^T` the decomposition of the weighted sum of the deltas, the result is `mean(S) U V^T`. Directions that
    several experts share no longer drown those that only one has. The paper tunes the factor on the result between 0
    and 3; 1 to 1.5 is usual.

    Even one expert changes: its spectrum is flattened. Noise is raised with everything else, so embeddings and heads
    are left out; they, norms, biases and convolutions get the mean of the deltas.

    Args:
        deltas: `[model, *batch, out, in]`.
        weight: multiplies each delta in the sum.
        mean: "rank" takes the mean over the singular values that are not zero, "all" divides their sum by the shorter
            side, as published; they differ for sums of low rank (LoRA), where "all" makes the result tiny.
        shape: of the tensors that the rows stand for, where they are cores of factors.

    Returns:
        `[*batch, out, in]`.

    Example:
        >>> import torch
        >>> iso_c(torch.tensor([[[3.0, 0.0], [0.0, -1.0]]])).round(decimals=4).tolist()
        [[2.0, 0.0], [0.0, -2.0]]
    """
    found = singular_triplets((deltas * as_column(weight, deltas)).sum(0))
    size = min(shape or deltas.shape[-2:]) if mean == "all" else None
    return mean_value(found.values, size)[..., None, None] * found.isometry()


@merge_method(_NEEDS, source=f"{_SOURCE}, section 4.2")
def iso_cts(
    deltas: Tensor,
    *,
    weight: PerModel = 1.0,
    common: Annotated[float, Span(0, 1)] = 0.8,
    mean: Literal["rank", "all"] = "rank",
    shape: tuple[int, int] | None = None,
) -> Tensor:
    """Merge isotropically in a common subspace of the sum, and in directions of each expert outside it.

    The `k` largest triplets of the sum are common; of every delta, what lies outside the common left vectors gives
    its `(q - k) / N` largest triplets. All left vectors side by side, and all right ones, are made orthonormal, and
    all singular values become their mean. `k` is about `common * q`, moved so that the rest divides by N.

    Better than `iso_c` from some 8 experts on (the paper counts up to 20 tasks); the same where `common` is 1. Other
    tensors get the mean of the deltas.

    Args:
        deltas: `[model, *batch, out, in]`.
        weight: multiplies each delta.
        common: share of the directions that are common, 0 to 1.
        mean: "rank" takes the mean over the singular values that are not zero, "all" over all places, as published.
        shape: of the tensors that the rows stand for, where they are cores of factors.

    Returns:
        `[*batch, out, in]`.

    Example:
        >>> import torch
        >>> experts = torch.stack([torch.diag(torch.tensor([3.0, 0.0])), torch.diag(torch.tensor([0.0, 1.0]))])
        >>> iso_cts(experts).round(decimals=4).tolist()
        [[2.0, 0.0], [0.0, 2.0]]
    """
    deltas = deltas * as_column(weight, deltas)
    size = min(shape or deltas.shape[-2:])
    shared, own = split_directions(size, deltas.shape[0], common)
    main = singular_triplets(deltas.sum(0), shared)
    rests = deltas - main.left @ (main.left.mT @ deltas)
    specific = singular_triplets(rests, own, scale=torch.linalg.matrix_norm(deltas))
    found = beside(specific, main)
    value = mean_value(found.values, shared + own * deltas.shape[0] if mean == "all" else None)
    return value[..., None, None] * (polar(found.left) @ polar(found.right))


def split_directions(size: int, models: int, common: float) -> tuple[int, int]:
    """Share out the directions of a matrix: how many are common, and how many each expert gets.

    Args:
        size: shorter side.
        models: number of experts.
        common: share that is common.

    Returns:
        The two counts; common + models * own is `size`, except where rounding would ask for more than there is.

    Example:
        >>> split_directions(64, 6, 0.8)
        (52, 2)
    """
    own = round((size - int(size * common)) / models)
    own = min(own, size // models)
    return size - own * models, own


def mean_value(values: Tensor, size: int | None = None) -> Tensor:
    """Take the mean of singular values: over those that are not zero, or over a number of places.

    Args:
        values: `[*batch, rank]`.
        size: number of places; None for those that are not zero.

    Returns:
        `[*batch]`; 0 where there are none.

    Example:
        >>> mean_value(torch.tensor([3.0, 1.0, 0.0]))
        tensor(2.)
    """
    places = (values > 0).sum(-1).clamp_min(1) if size is None else size
    return values.sum(-1) / places


def beside(specific: Triplets, main: Triplets) -> Triplets:
    """Put the triplets of several matrices and of a common one side by side.

    Args:
        specific: of `[model, *batch]` matrices.
        main: of `[*batch]` matrices.

    Example:
        >>> one = singular_triplets(torch.eye(2))
        >>> beside(singular_triplets(torch.eye(2)[None]), one).values.shape
        torch.Size([4])
    """
    return Triplets(
        torch.cat((*specific.left, main.left), dim=-1),
        torch.cat((*specific.values, main.values), dim=-1),
        torch.cat((*specific.right, main.right), dim=-2),
    )
