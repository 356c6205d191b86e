"""Model stock: between the base and the mean of models, where the angle between models says."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from umaf.merging.angles import gram, inner, stock_ratio
from umaf.merging.contract import Needs, Passes, merge_method, once
from umaf.merging.parts import total, weighted_sum


def measure(passes: Passes, *, models: int) -> dict[str, Tensor]:
    """Measure the angles, and give the `share` of each model, `[]`.

    Example:
        >>> import torch
        >>> measure(once(torch.tensor([[1.0, 0.0], [1.0, 1.0]])), models=2)
        {'share': tensor(0.4142, dtype=torch.float64)}
    """
    return {"share": stock_ratio(gram(passes, models)) / models}


@merge_method(
    Needs(
        base="required",
        scope="element",
        models=(2, None),
        equivariant=True,
        sums=True,
        whole={"filter_wise": True},
    ),
    source="Jang et al. 2024, Model Stock, arXiv 2403.19522, equation 2 (N models)",
    measure=measure,
)
def model_stock(
    deltas: Float[Tensor, " model *shape"],
    *,
    filter_wise: bool = False,
    measured: Mapping[str, Tensor] | None = None,
) -> Float[Tensor, "*shape"]:
    """Take the point between base and mean that is nearest to the centre of all such fine-tunes.

    For two or more models fine-tuned on the same task with other seeds or orders of data: what they agree on stays,
    what is noise goes. It has no options to search. Models of different tasks agree on nothing, their angle is a right
    one, and the result is nearly the base. Every tensor is merged by this rule, with its own angle.

        c   = mean of cos(delta_i, delta_j) over pairs, at least 0
        t   = N c / (1 + (N - 1) c)
        out = t mean_i delta_i

    A delta of 0 has cosine 0 with all others.

    Args:
        deltas: models minus base.
        filter_wise: one angle for each output (row) of a matrix in place of one for the tensor; for tensors of four
            axes or more, each filter. A vector is one row.
        measured: `share` of each model in the sum, `[]`, from `measure`; None measures this stack.

    Example:
        >>> import torch
        >>> model_stock(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
        tensor([0.8284, 0.4142])

    Source: Jang, Yun, Han: Model Stock: All we need is just a few fine-tuned models (2024), arXiv 2403.19522. mergekit
    leaves c as it is when negative; then t is negative too, or has no bound.
    """
    models = deltas.shape[0]
    if filter_wise and deltas.ndim > 2 and deltas.numel():
        mean = weighted_sum(deltas, 1 / models)
        rows = deltas.reshape(models, deltas.shape[1], -1) if deltas.ndim > 4 else deltas.flatten(1, -2)
        ratio = stock_ratio(inner(rows.transpose(0, 1))).to(deltas.dtype)
        return mean.view(rows.shape[1:]).mul_(ratio[:, None]).view(deltas.shape[1:])
    measured = measured if measured is not None else measure(once(deltas), models=models)
    return total(deltas) * measured["share"].item()
