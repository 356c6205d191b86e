"""WIDEN: deltas weighed by how far they turn and stretch each column of a matrix."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from umaf.merging.contract import Needs, Span, merge_method


@merge_method(
    Needs(
        base="required",
        scope="tensor",
        ground=True,
        rows={"vectors": "rows"},
        breaks={"same": "scores of columns that stand out are not divided among models"},
    ),
    source="Yu et al. 2024, Extend Model Merging from Fine-Tuned to Pre-Trained LLMs (WIDEN), arXiv 2408.03092",
)
def widen(
    deltas: Float[Tensor, " model *shape"],
    *,
    base: Float[Tensor, "*shape"] | None = None,
    above_average: Annotated[float, Span(0)] = 1.0,
    calibration: float = 1.0,
    vectors: Literal["columns", "rows"] = "columns",
) -> Float[Tensor, "*shape"]:
    """Weigh what models changed by how much it changed the length and the direction of each column.

    For models whose deltas differ in size by far, such as one trained on more text and one tuned by instructions: each
    model's columns are ranked among its own. A column that stands out in a model counts fully, so that columns that
    stand out in several are added. Every tensor is merged, vectors by the sizes of their entries. Of a table of
    embeddings rows are ranked, the tokens, as in the authors' program, and so they are of matrices stored `[in, out]`.

        m, D = lengths and directions of the columns of W
        r_i  = place of |m_i - m_0|, and of 1 - cos(D_i, D_0), among the model's own, from 0 to (n - 1) / n
        S_i  = softmax over models of r_i; where r_i > above_average * mean(r_i): calibration
        out  = sum_i (S_i of lengths + S_i of directions) / 2 * delta_i

    Args:
        deltas: models minus base.
        base: weights of the base, `[*shape]`; None takes zeros.
        above_average: t of the paper: how far above the mean of its model a place must be to stand out. 1 means that
            half of all columns do.
        calibration: s of the paper: the score of what stands out.
        vectors: what is ranked: columns of a matrix `[out, in]`, or rows. A recipe that does not say takes rows for
            embeddings and for what is stored as `[in, out]`.

    Example:
        >>> widen(torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]]), base=torch.ones(1, 2)).shape
        torch.Size([1, 2])

    Source: Yu, Yu, Yu, Huang, Li: Extend Model Merging from Fine-Tuned to Pre-Trained Large Language Models via Weight
    Disentanglement (2024), arXiv 2408.03092. A column of zeros has no direction; its cosine counts as 0 here.
    """
    if deltas.ndim not in (3, 4):  # vectors, and filters of convolutions
        return _scored(deltas.abs(), above_average, calibration).mul_(deltas).sum(0)
    ground = torch.zeros_like(deltas[0]) if base is None else base
    if vectors == "rows":
        deltas, ground = deltas.transpose(-2, -1), ground.transpose(-2, -1)
    longer, turned = _changes(deltas, ground)
    # Places are compared as whole numbers: with an odd number of columns one place is the mean itself.
    width = deltas.shape[-1]
    scores = _scored(_places(longer), above_average, calibration, divisor=width)
    scores += _scored(_places(turned), above_average, calibration, divisor=width)
    merged = torch.zeros_like(ground)
    for delta, score in zip(deltas, scores, strict=True):
        merged.addcmul_(delta, score.unsqueeze(-2), value=0.5)
    return merged.transpose(-2, -1).contiguous() if vectors == "rows" else merged


def _changes(deltas: Tensor, ground: Tensor) -> tuple[Tensor, Tensor]:
    """Give the change of length and 1 - cosine of each column, both `[model, ..., in]`."""
    before = ground.square().sum(-2).sqrt()
    longer, turned = [], []
    for delta in deltas:
        # In terms of the delta: |W|, its square difference to |W_0| and the cosine lose no digits where it is small.
        along = (ground * delta).sum(-2)
        square = delta.square().sum(-2)
        after = (before.square() + 2 * along + square).clamp(min=0).sqrt()
        longer.append(((2 * along + square) / (after + before).clamp(min=1e-30)).abs())
        both = before * after
        aside = (square * before.square() - along.square()).clamp(min=0)
        cosine = (before.square() + along) / both.clamp(min=1e-30)
        # 1 - cos = sin^2 / (1 + cos), and |a x b|^2 does not change when a is added to b.
        near = aside / both.square().clamp(min=1e-30) / (1 + cosine)
        turn = torch.where(cosine > 0.5, near, 1 - cosine)
        turned.append(torch.where(both > 0, turn, 1.0))
    return torch.stack(longer), torch.stack(turned)


def _places(values: Tensor) -> Tensor:
    """Rank along the last axis: 0, 1, 2 … from the smallest; equal ones in the order they come."""
    order = values.argsort(dim=-1, stable=True)
    steps = torch.arange(values.shape[-1], dtype=values.dtype, device=values.device)
    return torch.empty_like(values).scatter_(-1, order, steps.expand_as(values))


def _scored(values: Tensor, above_average: float, calibration: float, *, divisor: int = 1) -> Tensor:
    """Share out a score of 1 among models by value / divisor; give the full score to what stands out in its model."""
    if not values.numel():
        return values
    kept = values.flatten(1) if values.ndim > 1 else values[:, None]
    bound = kept.mean(-1).mul_(above_average).reshape(-1, *[1] * (values.ndim - 1))
    return (values / divisor).softmax(0).masked_fill_(values > bound, calibration)
