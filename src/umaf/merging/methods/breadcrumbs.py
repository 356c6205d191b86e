"""Model breadcrumbs: drop the largest entries of each delta as well as the small ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from umaf.merging.contract import Needs, Passes, PerModel, Span, merge_method, once
from umaf.merging.methods.ties import Combine, Divisor, Elect
from umaf.merging.parts import consensus, kept, magnitudes, per_model, trim, weighted_sum
from umaf.tensors.select import kth_largest

_NEEDS = Needs(
    base="required",
    scope="element",
    breaks={"single": "large and small entries are dropped", "same": "the same entries are dropped in all"},
)
_SOURCE = "Davari and Belilovsky 2023, Model Breadcrumbs, arXiv 2312.06795, section 3"


def places(density: Sequence[float], gamma: Sequence[float]) -> Callable[[int], list[list[int]]]:
    """Give the ranks, from the largest, between which entries stay: `[model][first, last]`.

    Example:
        >>> places([0.5], [0.1])(20)
        [[3, 12]]
    """

    def ranks(entries: int) -> list[list[int]]:
        found = []
        for share, top in zip(density, gamma, strict=True):
            stay = kept(share, entries)
            over = min(int(top * entries), entries - stay)
            found.append([over + 1, over + stay])
        return found

    return ranks


def measure(
    passes: Passes, *, models: int, density: PerModel = 0.9, gamma: PerModel = 0.01
) -> dict[str, Tensor]:
    """Find the largest and the smallest magnitude that stay, `[model]` each.

    Example:
        >>> measure(once(torch.tensor([[1.0, -4.0, 2.0, 3.0]])), models=1, density=0.5, gamma=0.25)
        {'most': tensor([3.]), 'least': tensor([2.])}
    """
    ranks = places(per_model(density, models), per_model(gamma, models))
    most, least = kth_largest(magnitudes(passes), ranks).unbind(1)
    return {"most": most, "least": least}


def between(stack: Tensor, least: Tensor, most: Tensor) -> Tensor:
    """Set to zero what is smaller or larger in magnitude than its model's bounds.

    Args:
        stack: `[model, *shape]`.
        least: `[model]`.
        most: `[model]`.

    Returns:
        A new stack.

    Example:
        >>> between(torch.tensor([[1.0, -4.0, 2.0, 3.0]]), torch.tensor([2.0]), torch.tensor([3.0]))
        tensor([[0., -0., 2., 3.]])
    """
    out, mark = trim(stack, least), torch.empty_like(stack[0])
    for row, limit in zip(out, most.tolist(), strict=True):
        row.mul_(torch.le(torch.abs(row, out=mark), limit, out=mark))
    return out


def _crumbs(
    deltas: Tensor, density: PerModel, gamma: PerModel, measured: Mapping[str, Tensor] | None
) -> Tensor:
    if measured is None:
        measured = measure(once(deltas), models=deltas.shape[0], density=density, gamma=gamma)
    return between(deltas, measured["least"], measured["most"])


@merge_method(_NEEDS, source=_SOURCE, measure=measure)
def breadcrumbs(
    deltas: Float[Tensor, " model *shape"],
    *,
    weight: PerModel = 1.0,
    density: Annotated[PerModel, Span(0, 1, open_low=True)] = 0.9,
    gamma: Annotated[PerModel, Span(0, 1, open_high=True)] = 0.01,
    normalize: bool = False,
    measured: Mapping[str, Tensor] | None = None,
) -> Float[Tensor, "*shape"]:
    """Drop the largest and the smallest entries of each tensor's delta, and add the deltas up.

    The few largest changes of a fine-tuned model are outliers that harm the other tasks; the many small ones are noise.
    For a growing number of tasks whose weights cannot be tuned. Every tensor is merged by this rule, and ranked by
    itself.

        t_i = delta_i where its rank by magnitude in the tensor lies in (gamma n, (gamma + density) n], else 0
        out = sum_i w_i t_i

    Args:
        deltas: models minus base.
        weight: of each model in the sum.
        density: share of entries that stay, in (0, 1]: int(density n) of them, at least one. Entries equal to one
            that stays at either end stay too.
        gamma: share of largest entries that are dropped, in [0, 1): int(gamma n) of them, or fewer where `density`
            leaves no room for so many.
        normalize: divide by the sum of weights.
        measured: `most` and `least`, `[model]`, from `measure`; None measures this stack.

    Example:
        >>> breadcrumbs(torch.tensor([[1.0, -4.0, 2.0, 3.0]]), density=0.5, gamma=0.25)
        tensor([0., -0., 2., 3.])

    Source: Davari, Belilovsky: Model Breadcrumbs (2023), arXiv 2312.06795, section 3. Density 0.9 as in MergeLLM.
    """
    return weighted_sum(_crumbs(deltas, density, gamma, measured), weight, normalize=normalize)


@merge_method(_NEEDS, source=_SOURCE, measure=measure)
def breadcrumbs_ties(
    deltas: Float[Tensor, " model *shape"],
    *,
    weight: PerModel = 1.0,
    density: Annotated[PerModel, Span(0, 1, open_low=True)] = 0.9,
    gamma: Annotated[PerModel, Span(0, 1, open_high=True)] = 0.01,
    elect: Elect = "weighted",
    divisor: Divisor = "weights",
    combine: Combine = "sum",
    measured: Mapping[str, Tensor] | None = None,
) -> Float[Tensor, "*shape"]:
    """Drop the largest and the smallest entries, elect a sign per entry and combine the models that have it.

    Breadcrumbs in the place of the trimming of TIES. Every tensor is merged by this rule, and ranked by itself.

        t_i = delta_i between the bounds of its tensor, else 0
        s   = sign(sum_i w_i t_i), 0 counting as plus
        out = sum_{i: sign t_i = s} w_i t_i

    Args:
        deltas: models minus base.
        weight: of each model.
        density: share of entries that stay, in (0, 1].
        gamma: share of largest entries that are dropped, in [0, 1).
        elect: by the sum of what stays, or of the weighted sum.
        divisor: of the mean, where `combine` is "mean": how many models agree, or the sum of their weights.
        combine: "sum" (mergekit's default), "mean" (TIES) or "max".
        measured: `most` and `least`, `[model]`, from `measure`; None measures this stack.

    Example:
        >>> breadcrumbs_ties(torch.tensor([[1.0, -4.0, 2.0, 3.0], [9.0, 5.0, 4.0, -4.5]]), density=0.5, gamma=0.25)
        tensor([ 0.0000,  5.0000,  2.0000, -4.5000])

    Source: Davari, Belilovsky: Model Breadcrumbs (2023), arXiv 2312.06795; with the election of TIES, as in mergekit.
    """
    crumbs = _crumbs(deltas, density, gamma, measured)
    return consensus(crumbs, weight, elect=elect, divisor=divisor, combine=combine)
