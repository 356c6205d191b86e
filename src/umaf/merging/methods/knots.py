"""KnOTS: deltas are merged entry by entry in axes that they share, found by one decomposition of all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from umaf.errors import ConfigError
from umaf.merging.contract import Needs, Passes, PerModel, Span, as_column, merge_method
from umaf.merging.methods.dare import dare_ties
from umaf.merging.methods.ties import measure as ties_measure
from umaf.merging.methods.ties import ties
from umaf.tensors.svd import singular_triplets

_SPARSE = "the inner rule drops entries"
Inner = Literal["ties", "dare_ties", "linear"]


def measure(
    passes: Passes, *, models: int, rule: Inner = "ties", density: PerModel = 0.2, smallest: float = 1e-5
) -> dict[str, Tensor]:
    """Find the magnitude from which the coordinates of each expert stay, over all matrices: `threshold` `[model]`.

    Every pass decomposes every matrix again: coordinates are as many as weights, and are never kept.

    Example:
        >>> from umaf.merging.contract import once
        >>> experts = torch.tensor([[[2.0, 0.0], [0.0, 0.0]], [[4.0, 0.0], [0.0, 0.0]]])
        >>> measure(once(experts), models=2, density=0.2)["threshold"].round(decimals=4).tolist()
        [2.0, 4.0]
    """
    if rule != "ties":
        return {}
    matrices = cast(Any, passes).matrices

    def coordinates() -> Iterator[tuple[str, Tensor]]:
        for name, deltas in matrices():
            yield name, shared_axes(deltas, smallest)[1].flatten(1)

    return ties_measure(coordinates, models=models, density=density, tie="plus")


@merge_method(
    Needs(
        base="required",
        measure="trim",
        matrices=True,
        memory=14.0,
        otherwise="mean",
        random=True,
        breaks={"single": _SPARSE, "same": _SPARSE},
    ),
    source="Stoica et al., Model Merging with SVD to Tie the KnOTS, ICLR 2025, section 4",
    measure=measure,
)
def knots(
    deltas: Tensor,
    *,
    weight: PerModel = 1.0,
    rule: Inner = "ties",
    density: Annotated[PerModel, Span(0, 1, open_low=True)] = 0.2,
    trim: Literal["model", "tensor"] = "model",
    smallest: Annotated[float, Span(0)] = 1e-5,
    measured: Mapping[str, Tensor] | None = None,
    generator: np.random.Generator | None = None,
) -> Tensor:
    """Merge entry by entry, but in the left singular axes that all deltas share.

    All deltas side by side are decomposed once, `[delta_1 | ... | delta_N] = U S [V_1 | ... | V_N]^T`. The coordinates
    `S V_i^T = U^T delta_i` of the experts lie in the same axes, the strongest first, where rules that compare entries
    (signs, magnitudes) have something to compare. They are merged by the inner rule, and U carries the result back.

    Made for LoRA experts, whose deltas do not align in the axes of the weights; the published factor on the result is
    0.6 (4.3 points above TIES on 8 image tasks). For full fine-tuning it is close to the inner rule itself. Like the
    published program it trims over all layers at once, which decomposes every matrix about three times; trimming each
    tensor by itself does it once. Other tensors get the mean of the deltas.

    Args:
        deltas: `[model, out, in]`.
        weight: of each model, in the inner rule.
        rule: "ties" (trim, elect by the sum, mean of those that agree), "dare_ties" (drop by chance instead of by
            size), or "linear" (the weighted mean, the same in any axes).
        density: share of the coordinates that each expert keeps, above 0, at most 1; not used by "linear".
        trim: the coordinates that "ties" keeps are the largest of the whole model, or of each tensor.
        smallest: singular values up to this one are no axes.
        measured: `threshold` `[model]`, from :func:`measure`; None trims this stack by itself.
        generator: of the random numbers of "dare_ties".

    Returns:
        `[out, in]`.

    Raises:
        ConfigError: the weights of "linear" add up to zero.

    Example:
        >>> import torch
        >>> experts = torch.tensor([[[2.0, 0.0], [0.0, 0.0]], [[4.0, 0.0], [0.0, 0.0]]])
        >>> knots(experts, density=0.5).round(decimals=4).tolist()
        [[3.0, 0.0], [0.0, 0.0]]
    """
    axes, coordinates = shared_axes(deltas, smallest)
    if coordinates.shape[1] == 0:
        return torch.zeros_like(deltas[0])
    if rule == "ties":
        found = dict(measured) if measured else None
        return axes @ ties(coordinates, weight=weight, density=density, tie="plus", measured=found)
    if rule == "dare_ties":
        return axes @ dare_ties(coordinates, weight=weight, density=density, generator=generator)
    column = as_column(weight, deltas)
    if float(column.sum()) == 0:
        raise ConfigError("knots: the weights of a weighted mean must not add up to 0.")
    return axes @ ((coordinates * column).sum(0) / column.sum())


def shared_axes(deltas: Tensor, smallest: float = 0.0) -> tuple[Tensor, Tensor]:
    """Find the left singular vectors of all deltas side by side, and the deltas in these axes.

    Args:
        deltas: `[model, out, in]`.
        smallest: vectors whose singular value is not above it are left out, and those that are rounding.

    Returns:
        `[out, rank]`, orthonormal columns, the strongest first, each with an arbitrary sign; and `[model, rank, in]`.

    Example:
        >>> axes, coordinates = shared_axes(torch.eye(3)[None, :, :2])
        >>> axes.shape, coordinates.shape
        (torch.Size([3, 2]), torch.Size([1, 2, 2]))
    """
    found = singular_triplets(torch.cat(tuple(deltas), dim=-1))
    kept = found.values > smallest
    rows = found.values[kept, None] * found.right[kept]
    return found.left[:, kept], rows.unflatten(1, (deltas.shape[0], -1)).transpose(0, 1)
