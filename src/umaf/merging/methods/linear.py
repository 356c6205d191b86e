"""Linear: the weighted mean of weights, known as a model soup."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from umaf.merging.contract import Needs, PerModel, merge_method
from umaf.merging.parts import weighted_sum


@merge_method(
    Needs(base="none", scope="element"),
    source="Wortsman et al. 2022, Model soups, arXiv 2203.05482, section 2 (uniform soup)",
)
def linear(
    stack: Float[Tensor, " model *shape"], *, weight: PerModel = 1.0, normalize: bool = True
) -> Float[Tensor, "*shape"]:
    """Average weights.

    For models fine-tuned from one base on the same task, and the first thing to compare other methods with. Needs no
    base. Every tensor is merged by this rule, embeddings, norms and heads too.

        out = sum_i w_i theta_i / sum_i w_i

    Args:
        stack: weights of the models.
        weight: of each model; any number, only proportions matter with `normalize`.
        normalize: divide by the sum of weights, where that is not 0.

    Example:
        >>> import torch
        >>> linear(torch.tensor([[1.0, 2.0], [3.0, 6.0]]), weight=[3.0, 1.0])
        tensor([1.5000, 3.0000])

    Source: Wortsman et al.: Model soups: averaging weights of multiple fine-tuned models improves accuracy without
    increasing inference time (2022), arXiv 2203.05482, section 2. FusionBench measures 66.5 % on 8 CLIP ViT-B/32 tasks
    (the base 48.2 %, the experts themselves 90.3 %).
    """
    return weighted_sum(stack, weight, normalize=normalize)
