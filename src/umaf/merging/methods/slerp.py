"""Slerp: from one model to another along an arc."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from jaxtyping import Float
from torch import Tensor

from umaf.merging.angles import LERP_ABOVE, arc_shares, gram
from umaf.merging.contract import Needs, Passes, Span, merge_method, once
from umaf.merging.parts import weighted_sum


def measure(
    passes: Passes, *, models: int, t: float = 0.5, lerp_above: float = LERP_ABOVE
) -> dict[str, Tensor]:
    """Measure the angle, and give the `share` of each model, `[2]`.

    Example:
        >>> import torch
        >>> measure(once(torch.eye(2)), models=2)
        {'share': tensor([0.7071, 0.7071], dtype=torch.float64)}
    """
    return {"share": arc_shares(gram(passes, models), t, lerp_above=lerp_above)}


@merge_method(
    Needs(base="none", scope="element", models=(2, 2), order_matters=True),
    source="Shoemake 1985, Animating rotation with quaternion curves, SIGGRAPH (slerp)",
    measure=measure,
)
def slerp(
    stack: Float[Tensor, " model *shape"],
    *,
    t: Annotated[float, Span(0, 1)] = 0.5,
    lerp_above: Annotated[float, Span(-1, 1)] = LERP_ABOVE,
    measured: Mapping[str, Tensor] | None = None,
) -> Float[Tensor, "*shape"]:
    """Go from one model to another along the arc between their directions.

    For two models. Where the angle between them is wide, a mean is shorter than either, and the arc keeps the length.
    Models fine-tuned from one base differ by so little that arc and chord are the same: `nuslerp` with a base, which
    works on deltas, is where the arc matters. Each tensor has its own angle; every tensor is merged by this rule.

        w   = arccos(<A, B> / (|A| |B|))
        out = sin((1 - t) w) / sin(w) A + sin(t w) / sin(w) B

    The chord, `(1 - t) A + t B`, is taken where the cosine is above `lerp_above`, where a tensor is all zeros, and
    where directions are opposite (there is no one arc).

    Args:
        stack: weights of the two models.
        t: 0 is the first model, 1 the second.
        lerp_above: cosine above which the chord is taken; 1 takes the arc always. They differ by 1.3e-4 at most above
            0.9995.
        measured: `share` of each model in the sum, `[model]`, from `measure`; None measures this stack.

    Example:
        >>> import torch
        >>> slerp(torch.eye(2), t=0.5)
        tensor([0.7071, 0.7071])

    Source: Shoemake: Animating rotation with quaternion curves (SIGGRAPH 1985); for weights, mergekit. mergekit takes
    the chord for nearly opposite directions too, and counts a tensor of zeros as orthogonal to the other.
    """
    if measured is None:
        measured = measure(once(stack), models=2, t=t, lerp_above=lerp_above)
    return weighted_sum(stack, measured["share"])
