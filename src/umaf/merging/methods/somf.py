"""SOMF: deltas of tasks behind a mask that leaves the safety of their base alone."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from umaf.merging.contract import Needs, PerModel, Span, merge_method
from umaf.merging.parts import per_model

_BREAKS = {
    "single": "the last model is the mask",
    "same": "the last model is the mask, and deltas are added",
}


@merge_method(
    Needs(
        base="required",
        scope="tensor",
        ground=True,
        models=(2, None),
        order_matters=True,
        breaks=_BREAKS,
    ),
    source="Yi et al. 2024, A safety realignment framework via subspace-oriented model fusion, arXiv 2405.09055",
)
def somf(
    deltas: Float[Tensor, " model *shape"],
    *,
    base: Float[Tensor, "*shape"] | None = None,
    weight: PerModel = 1.0,
    mask: Literal["soft", "binary"] = "soft",
    threshold: Annotated[float, Span(0, 1)] = 0.5,
    rescale: bool = True,
) -> Float[Tensor, "*shape"]:
    """Add the deltas of tasks to a safety-aligned base, through a mask shared by all.

    For bringing back the safety of a model after fine-tuning: the base is the aligned model, and the mask, trained by
    preferences elsewhere, says which entries tasks may change. The mask is the last model of the recipe: a checkpoint
    with the base's tensors, whose entries are probabilities from 0 to 1. Every tensor is merged by this rule.

        m   = mask, or 1 where mask > threshold and else 0; divided by its mean over the tensor
        out = m sum_i w_i delta_i

    Args:
        deltas: models minus base; the last row is the mask minus base.
        base: weights of the base, `[*shape]`; None means that the last row is the mask itself.
        weight: of each task: 1 for one task, 0.3 for several (0.04 where whole models are tuned). That of the mask
            counts for nothing.
        mask: as it is ("soft"), or cut at the threshold ("binary").
        threshold: of a binary mask.
        rescale: divide the mask by its mean, so that the size of the change stays.

    Example:
        >>> somf(torch.tensor([[2.0, 4.0, 6.0], [1.0, 0.0, 1.0]]), rescale=False)
        tensor([2., 0., 6.])

    Source: Yi, Zheng, Wang, Wang, He: A safety realignment framework via subspace-oriented model fusion for large
    language models (2024), arXiv 2405.09055. The authors draw the mask anew at inference; here it is given, and the
    result the same each time.
    """
    gate = deltas[-1] if base is None else deltas[-1] + base
    gate = (gate > threshold).to(deltas.dtype) if mask == "binary" else gate.clamp(0, 1)
    if rescale and gate.numel():
        mean = float(gate.mean(dtype=torch.float64))
        gate = gate / mean if mean > 0 else gate
    merged = torch.zeros_like(gate)
    for delta, share in zip(deltas[:-1], per_model(weight, deltas.shape[0])[:-1], strict=True):
        merged.add_(delta, alpha=share)
    return merged.mul_(gate)
