"""Localize and stitch: the largest changes of each model, put together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from umaf.merging.contract import Needs, Passes, PerModel, Span, merge_method, once
from umaf.merging.parts import kept, per_model, thresholds, trim


def measure(
    passes: Passes, *, models: int, density: PerModel = 0.1, rounding: Literal["code", "down"] = "code"
) -> dict[str, Tensor]:
    """Find the magnitude at which each model is cut, as `threshold` `[model]`.

    Example:
        >>> measure(once(torch.tensor([[1.0, 3.0, 2.0]])), models=1, density=0.4)
        {'threshold': tensor([3.])}
        >>> one = once(torch.tensor([[1.0, 3.0, 2.0]]))
        >>> bool(measure(one, models=1, density=0.7)["threshold"] > 2.0)
        True
    """
    shares, inner = per_model(density, models), [False] * models

    def counts(entries: int) -> list[int]:
        regions = [kept(share, entries) for share in shares]
        inner[:] = [1 < region < entries for region in regions]
        return regions

    found = thresholds(passes, counts)
    if rounding == "code":
        over = torch.nextafter(found, torch.full_like(found, torch.inf))
        found = torch.where(torch.tensor(inner), over, found)
    return {"threshold": found}


@merge_method(
    Needs(
        base="required",
        scope="element",
        measure="localize",
        breaks={
            "single": "entries below the threshold are dropped",
            "same": "the same entries are dropped in all",
        },
    ),
    source="He et al. 2024, Localize-and-Stitch, arXiv 2408.13656 (the variant without data)",
    measure=measure,
)
def localize_and_stitch(
    deltas: Float[Tensor, " model *shape"],
    *,
    weight: PerModel = 1.0,
    density: Annotated[PerModel, Span(0, 1, open_low=True)] = 0.1,
    localize: Literal["model", "tensor"] = "model",
    rounding: Literal["code", "down"] = "code",
    measured: Mapping[str, Tensor] | None = None,
) -> Float[Tensor, "*shape"]:
    """Keep the largest changes of each model, and average only where several models have one.

    For experts of different tasks: small regions hold most of a skill and seldom overlap, so most entries come from one
    expert, unscaled. It forgets little of the base. The variant that trains the regions needs data and is not here.
    Every tensor is merged by this rule.

        m_i = 1 where |delta_i| is among the largest (density), else 0
        out = sum_i m_i w_i delta_i / max(1, sum_i m_i)

    Args:
        deltas: models minus base.
        weight: what the parts of each model are multiplied by.
        density: share of entries in a model's region, in (0, 1]: int(density n) of n, at least one.
        localize: the largest of the whole model, or of each tensor.
        rounding: "code" leaves out the smallest of the region and all that equal it, as the authors' program does,
            which compares with > (a region of one entry, or of all, is kept whole here). "down" keeps them all.
        measured: `threshold` `[model]`, from `measure`; None measures this stack.

    Example:
        >>> localize_and_stitch(torch.tensor([[4.0, 0.0, 1.0], [2.0, 3.0, 1.0]]), density=0.67, rounding="down")
        tensor([3., 3., 1.])

    Source: He, Hu, Lin, Zhang, Zhao: Localize-and-Stitch: Efficient Model Merging via Sparse Task Arithmetic (2024),
    arXiv 2408.13656. MergeBench uses a density of 0.1 (the authors' program 0.05) and finds both variants among the
    best of 8 methods. MergeBench's program divides by the overlap of the last two models only; the authors' and this
    one by that of all.
    """
    if measured is None:
        measured = measure(once(deltas), models=deltas.shape[0], density=density, rounding=rounding)
    cut = trim(deltas, measured["threshold"])
    total = torch.zeros_like(cut[0])
    count = torch.zeros_like(total)
    for row, share in zip(cut, per_model(weight, deltas.shape[0]), strict=True):
        total.add_(row, alpha=share)
        count.add_(row.sign_().abs_())
    return total.div_(count.clamp_(min=1))
