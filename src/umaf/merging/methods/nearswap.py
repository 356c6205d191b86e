"""Nearswap: a model moved towards another, by no more than a given step in each entry."""

from __future__ import annotations

from typing import Annotated

from jaxtyping import Float
from torch import Tensor

from umaf.merging.contract import Needs, Span, merge_method


@merge_method(
    Needs(base="none", scope="element", models=(2, 2), order_matters=True),
    source="mergekit's nearswap (alchemonaut, BoreanGale-70B)",
)
def nearswap(
    stack: Float[Tensor, " model *shape"], *, t: Annotated[float, Span(0)]
) -> Float[Tensor, "*shape"]:
    """Move every entry of the first model towards the second, by `t` at most.

    Entries nearer than `t` become the second model's; the others move by `t`. For giving a model a touch of another
    that need not share its base. Every tensor is merged by this rule.

        out = A + sign(B - A) min(|B - A|, t)

    Args:
        stack: weights of the two models.
        t: largest change of an entry, in the units of weights; 0.001 or so for models of one family.

    Example:
        >>> import torch
        >>> nearswap(torch.tensor([[0.0, 0.0], [0.25, -2.0]]), t=0.5)
        tensor([ 0.2500, -0.5000])

    Source: alchemonaut: BoreanGale-70B (2024), where the name is from; mergekit's nearswap.
    """
    return (stack[1] - stack[0]).clamp_(-t, t).add_(stack[0])
