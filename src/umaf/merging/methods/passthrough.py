"""Passthrough: one model as it is, for putting layers of several models one after another."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from umaf.merging.contract import Needs, PerModel, merge_method
from umaf.merging.parts import per_model


@merge_method(
    Needs(base="none", scope="element", models=(1, 1)),
    source="mergekit's passthrough",
)
def passthrough(stack: Float[Tensor, " model *shape"], *, scale: PerModel = 1.0) -> Float[Tensor, "*shape"]:
    """Take one model as it is, or times a number.

    With `slices` a recipe puts layers of several models, or some layers twice, one after another. Layers that come
    twice are often written with `scale: 0` for `o_proj` and `down_proj`, so that the second does nothing until it is
    trained. Every tensor is taken over by this rule.

        out = scale theta

    Args:
        stack: weights of the model.
        scale: what they are multiplied by.

    Example:
        >>> import torch
        >>> passthrough(torch.tensor([[1.0, 2.0]]), scale=0.5)
        tensor([0.5000, 1.0000])

    Source: mergekit's passthrough; the form of Goliath-120B and SOLAR (Kim et al. 2023, arXiv 2312.15166).
    """
    return stack[0] * per_model(scale, stack.shape[0])[0]
