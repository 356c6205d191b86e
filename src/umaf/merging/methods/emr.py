"""EMR's elected vector: the one delta that all tasks of EMR-Merging share."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from umaf.merging.contract import Needs, merge_method
from umaf.merging.parts import disjoint, weighted_sum


@merge_method(
    Needs(base="required", scope="element"),
    source="Huang et al. 2024, EMR-Merging, arXiv 2405.17461, section 3.2 (elect)",
)
def emr_unified(deltas: Float[Tensor, " model *shape"]) -> Float[Tensor, "*shape"]:
    """Elect a sign for each entry, and take the largest magnitude among the models that have it.

    This is the vector that EMR-Merging stores once; each task then masks and rescales it, and only with those masks
    does a task come near its expert. Alone it is a merge like TIES with the largest in place of the mean, without
    trimming; its norm grows with the number of models. Every tensor is merged by this rule.

        s   = 1 where mean_i delta_i > 0, else -1
        out = s max(max_i s delta_i, 0)

    Args:
        deltas: models minus base.

    Example:
        >>> emr_unified(torch.tensor([[1.0, -4.0], [3.0, 1.0]]))
        tensor([ 3., -4.])

    Source: Huang, Ye, Chen, He, Yue, Ouyang: EMR-Merging (2024), arXiv 2405.17461, section 3.2.
    """
    signs = weighted_sum(deltas, 1.0)
    torch.gt(signs, 0, out=signs)
    return disjoint(deltas, signs.mul_(2).sub_(1), combine="max")
