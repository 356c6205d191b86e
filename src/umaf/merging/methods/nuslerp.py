"""Nuslerp: slerp by the weights of two models, of their weights or deltas, whole or row by row."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from umaf.merging.angles import arc_shares, gram, inner
from umaf.merging.contract import Needs, Passes, PerModel, merge_method, once
from umaf.merging.parts import per_model, weighted_sum


def measure(passes: Passes, *, models: int, weight: PerModel = 1.0) -> dict[str, Tensor]:
    """Measure the angle, and give the `share` of each model, `[2]`.

    Example:
        >>> import torch
        >>> measure(once(torch.eye(2)), models=2)
        {'share': tensor([0.7071, 0.7071], dtype=torch.float64)}
    """
    return {"share": arc_shares(gram(passes, models), _place(weight))}


def _place(weight: PerModel) -> float:
    """Tell how far along the arc two weights are."""
    first, second = per_model(weight, 2)
    total = first + second
    return 0.5 if abs(total) < 1e-8 else second / total


@merge_method(
    Needs(
        base="optional",
        scope="element",
        models=(2, 2),
        equivariant=True,
        whole={"nuslerp_flatten": False},
    ),
    source="mergekit's nuslerp; Shoemake 1985, Animating rotation with quaternion curves, SIGGRAPH (slerp)",
    measure=measure,
)
def nuslerp(
    deltas: Float[Tensor, " model *shape"],
    *,
    weight: PerModel = 1.0,
    nuslerp_flatten: bool = True,
    nuslerp_row_wise: bool = False,
    measured: Mapping[str, Tensor] | None = None,
) -> Float[Tensor, "*shape"]:
    """Go along the arc between two deltas, as far as their weights say.

    With a base, for two experts: deltas of different tasks are nearly orthogonal, so their mean has 0.71 of their
    length, and the arc keeps it. Without a base it is `slerp` of weights. Every tensor is merged by this rule.

        t   = w_2 / (w_1 + w_2)
        out = sin((1 - t) a) / sin(a) delta_1 + sin(t a) / sin(a) delta_2,  a the angle between them

    Where a delta is 0, or directions are opposite, the chord `(1 - t) delta_1 + t delta_2` is taken.

    Args:
        deltas: two models minus base, or their weights.
        weight: of each model; only proportions matter. t is 0.5 where they add up to 0.
        nuslerp_flatten: one angle for each tensor. If off, one for each vector along the last axis.
        nuslerp_row_wise: without flattening, vectors along the first axis in place of the last (mergekit's program,
            whose text says the opposite).
        measured: `share` of each model in the sum, `[model]`, from `measure`; None measures this stack.

    Example:
        >>> import torch
        >>> nuslerp(torch.eye(2), weight=[3.0, 1.0])
        tensor([0.9239, 0.3827])

    Source: mergekit's nuslerp after Shoemake: Animating rotation with quaternion curves (SIGGRAPH 1985). mergekit
    calculates in the dtype of the file and counts a delta of 0 as orthogonal to the other.
    """
    if nuslerp_flatten or deltas.ndim <= 2 or deltas.numel() == 0:
        measured = measured if measured is not None else measure(once(deltas), models=2, weight=weight)
        return weighted_sum(deltas, measured["share"])
    axis = 1 if nuslerp_row_wise else deltas.ndim - 1
    vectors = deltas.movedim(axis, -1)
    *kept, length = vectors.shape[1:]
    rows = vectors.reshape(2, -1, length)
    shares = arc_shares(inner(rows.transpose(0, 1)), _place(weight)).to(deltas.dtype)
    merged = rows[0] * shares[:, :1]
    merged.addcmul_(rows[1], shares[:, 1:])
    return merged.view(*kept, length).movedim(-1, axis - 1).contiguous()
