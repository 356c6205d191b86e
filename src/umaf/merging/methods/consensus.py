"""Consensus merging: keep the entries of a merged delta that at least some of the models use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from umaf.merging import parts
from umaf.merging.contract import Needs, Passes, PerModel, Span, merge_method, once
from umaf.merging.methods import ties as rule
from umaf.merging.parts import kept, per_model, weighted_sum
from umaf.tensors.select import kth_largest

_NEEDS = Needs(
    base="required",
    scope="element",
    measure="over",
    breaks={
        "single": "one model is fewer than two: nothing is used by two",
        "same": "small entries may be dropped",
    },
)
_SOURCE = "Wang et al. 2024, Localizing Task Information (TALL-masks), arXiv 2405.07813, section 5"
_Merge = Callable[[Tensor], Tensor]


def use(deltas: Tensor, merged: Tensor) -> Tensor:
    """Tell how much of each entry is a model's own: |delta| over what the other models add to it.

    Args:
        deltas: `[model, *shape]`.
        merged: `[*shape]`.

    Returns:
        `[model, *shape]`: |delta| / |merged - delta|, 0 where the delta is 0, inf where nothing is added.

    Example:
        >>> use(torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([3.0, 2.0, 0.0]))
        tensor([[0.5000,    inf, 0.0000]])
    """
    ratio = deltas.abs() / (merged - deltas).abs_()
    return ratio.nan_to_num_(nan=0.0, posinf=torch.inf)


def _limits(passes: Passes, merge: _Merge, models: int, density: PerModel) -> Tensor:
    shares = per_model(density, models)

    def ratios() -> Iterator[Tensor]:
        for _, chunk in passes():
            yield use(chunk, merge(chunk))

    return kth_largest(ratios, lambda entries: [[kept(share, entries)] for share in shares])[:, 0]


def _agreed(deltas: Tensor, merged: Tensor, threshold: PerModel, limit: Tensor | None, least: int) -> Tensor:
    # The masks are |delta| > lambda |merged - delta|, or the largest ratios of the two, as many as the density says.
    votes, mark, apart = (torch.zeros_like(merged) for _ in range(3))
    if limit is None:
        for row, factor in zip(deltas, per_model(threshold, deltas.shape[0]), strict=True):
            torch.sub(merged, row, out=apart).abs_().mul_(factor)
            votes.add_(torch.gt(torch.abs(row, out=mark), apart, out=mark))
    else:
        for row, bound in zip(deltas, limit.tolist(), strict=True):
            ratio = use(row[None], merged)[0]
            votes.add_((ratio >= bound) & (ratio > 0))
    return merged * (votes >= least)


def measure_ta(
    passes: Passes,
    *,
    models: int,
    weight: PerModel = 1.0,
    masks: Literal["threshold", "density"] = "threshold",
    density: PerModel = 0.35,
) -> dict[str, Tensor]:
    """Find the ratio from which a model uses an entry, `[model]`, where masks are made by density.

    Example:
        >>> measure_ta(once(torch.ones(2, 4)), models=2)
        {}
    """
    if masks == "threshold":
        return {}
    return {"limit": _limits(passes, lambda chunk: weighted_sum(chunk, weight), models, density)}


def measure_ties(
    passes: Passes,
    *,
    models: int,
    weight: PerModel = 1.0,
    trimmed: float = 0.2,
    masks: Literal["threshold", "density"] = "threshold",
    density: PerModel = 0.35,
) -> dict[str, Tensor]:
    """Find what TIES trims by, and the ratio from which a model uses an entry.

    Example:
        >>> sorted(measure_ties(once(torch.ones(2, 4)), models=2))
        ['threshold', 'tie']
    """
    found = rule.measure(passes, models=models, density=trimmed)
    if masks == "density":
        found["limit"] = _limits(passes, lambda chunk: _ties(chunk, weight, found), models, density)
    return found


def _ties(deltas: Tensor, weight: PerModel, measured: Mapping[str, Tensor]) -> Tensor:
    return parts.consensus(
        parts.trim(deltas, measured["threshold"]),
        weight,
        elect="unweighted",
        divisor="count",
        combine="sum",
        tie=float(measured["tie"]),
    )


@merge_method(_NEEDS, source=_SOURCE, measure=measure_ta)
def consensus_ta(
    deltas: Float[Tensor, " model *shape"],
    *,
    weight: PerModel = 1.0,
    least: Annotated[int, Span(0)] = 2,
    masks: Literal["threshold", "density"] = "threshold",
    threshold: Annotated[PerModel, Span(0)] = 0.4,
    density: Annotated[PerModel, Span(0, 1, open_low=True)] = 0.35,
    over: Literal["model", "tensor"] = "model",
    measured: Mapping[str, Tensor] | None = None,
) -> Float[Tensor, "*shape"]:
    """Add the deltas up, and keep the entries that at least two models use.

    Entries that no model or only one uses do harm in the sum. For many tasks (8 and more), where task arithmetic
    fails; the sum is to be scaled down (`scale` about 0.3). Every tensor is merged by this rule.

        total = sum_i w_i delta_i
        m_i = |delta_i| > threshold |total - delta_i|
        out = total where sum_i m_i >= least, else 0

    Args:
        deltas: models minus base.
        weight: of each model in the sum.
        least: how many models must use an entry; 0 keeps all (task arithmetic), 1 drops what nobody uses.
        masks: "threshold" compares as above; "density" chooses for each model the threshold at which it uses a given
            share of the entries, which needs no validation data either and one more pass.
        threshold: the authors choose it for each task from 0.2, 0.3, … 0.6 by accuracy on validation data.
        density: share of entries that a model uses, in (0, 1], with `masks="density"`.
        over: the density of the whole model, or of each tensor.
        measured: `limit` `[model]`, from `measure_ta`; None measures this stack.

    Example:
        >>> consensus_ta(torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.1]]))
        tensor([2., 0., 0.])

    Source: Wang, Dimitriadis, Ortiz-Jimenez, Fleuret, Frossard: Localizing Task Information for Improved Model
    Merging and Compression (2024), arXiv 2405.07813, section 5.
    """
    if measured is None:
        measured = measure_ta(
            once(deltas), models=deltas.shape[0], weight=weight, masks=masks, density=density
        )
    return _agreed(deltas, weighted_sum(deltas, weight), threshold, measured.get("limit"), least)


@merge_method(_NEEDS, source=_SOURCE, measure=measure_ties)
def consensus_ties(
    deltas: Float[Tensor, " model *shape"],
    *,
    weight: PerModel = 1.0,
    trimmed: Annotated[float, Span(0, 1, open_low=True)] = 0.2,
    least: Annotated[int, Span(0)] = 2,
    masks: Literal["threshold", "density"] = "threshold",
    threshold: Annotated[PerModel, Span(0)] = 0.4,
    density: Annotated[PerModel, Span(0, 1, open_low=True)] = 0.35,
    over: Literal["model", "tensor"] = "model",
    measured: Mapping[str, Tensor] | None = None,
) -> Float[Tensor, "*shape"]:
    """Merge by TIES with a sum, and keep the entries that at least two models use.

    Consensus merging on another merged vector: trimmed, signs elected, agreeing entries added up. Every tensor is
    merged by this rule.

        total = TIES of the deltas, the largest `trimmed` share kept, those with the elected sign added up
        m_i = |delta_i| > threshold |total - delta_i|
        out = total where sum_i m_i >= least, else 0

    Args:
        deltas: models minus base.
        weight: of each model in the sum; the election does not see it.
        trimmed: share of entries that TIES keeps, in (0, 1].
        least: how many models must use an entry; 0 keeps all.
        masks: see `consensus_ta`.
        threshold: see `consensus_ta`.
        density: share of entries that a model uses, in (0, 1], with `masks="density"`.
        over: trimming and density of the whole model, or of each tensor.
        measured: `threshold` `[model]`, `tie` and perhaps `limit` `[model]`, from `measure_ties`; None measures this
            stack.

    Example:
        >>> consensus_ties(torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.1]]), trimmed=1.0)
        tensor([2., 0., 0.])

    Source: Wang, Dimitriadis, Ortiz-Jimenez, Fleuret, Frossard: Localizing Task Information for Improved Model
    Merging and Compression (2024), arXiv 2405.07813, section 5.
    """
    if measured is None:
        measured = measure_ties(
            once(deltas), models=deltas.shape[0], weight=weight, trimmed=trimmed, masks=masks, density=density
        )
    return _agreed(deltas, _ties(deltas, weight, measured), threshold, measured.get("limit"), least)
