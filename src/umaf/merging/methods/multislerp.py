"""Multi-slerp: the mean direction of several models, at their mean length."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from umaf.merging.angles import direction_shares, gram
from umaf.merging.contract import Needs, Passes, PerModel, merge_method, once
from umaf.merging.parts import per_model, weighted_sum


def measure(
    passes: Passes, *, models: int, weight: PerModel = 1.0, normalize_weights: bool = True
) -> dict[str, Tensor]:
    """Measure the angles, and give the `share` of each model, `[model]`.

    Example:
        >>> measure(once(torch.eye(2)), models=2)
        {'share': tensor([0.7071, 0.7071], dtype=torch.float64)}
    """
    shares = torch.tensor(per_model(weight, models), dtype=torch.float64)
    if normalize_weights and abs(float(shares.sum())) >= 1e-8:
        shares = shares / shares.sum()
    return {"share": direction_shares(gram(passes, models), shares)}


@merge_method(
    Needs(base="optional", scope="element", equivariant=True),
    source="mergekit's multislerp: barycentric interpolation on a sphere, one tangent step",
    measure=measure,
)
def multislerp(
    deltas: Float[Tensor, " model *shape"],
    *,
    weight: PerModel = 1.0,
    normalize_weights: bool = True,
    eps: float = 1e-8,
    measured: Mapping[str, Tensor] | None = None,
) -> Float[Tensor, "*shape"]:
    """Take the mean direction of several models, at their mean length.

    `slerp` for more than two models: unlike a mean it keeps the length, which matters for deltas of different tasks
    (with a base) and hardly for weights of one base. Each tensor has its own direction; every tensor is merged by this
    rule.

        u_i = delta_i / |delta_i|
        out = m / |m| sum_i w_i |delta_i|,  m = sum_i w_i u_i

    The published step in the tangent space at m / |m|, `sum_i w_i (u_i - (u_i . m) m / |m|^2)`, is m minus itself: it
    is zero for any weights, and left out. `karcher` weighs directions by their angles and goes on until it is zero.

    Args:
        deltas: models minus base, or their weights where the recipe names no base.
        weight: of each model.
        normalize_weights: divide weights by their sum, where that is not 0.
        eps: changes nothing; mergekit keeps it from dividing by 0, here such tensors get the weighted sum.
        measured: `share` of each model in the sum, `[model]`, from `measure`; None measures this stack.

    Example:
        >>> multislerp(torch.eye(3))
        tensor([0.5774, 0.5774, 0.5774])

    Source: mergekit's multislerp (2025). mergekit calculates in the dtype of the file, gives one model unscaled
    whatever its weight, and NaN for weights that add up to 0.
    """
    if measured is None:
        models = deltas.shape[0]
        measured = measure(once(deltas), models=models, weight=weight, normalize_weights=normalize_weights)
    return weighted_sum(deltas, measured["share"])
