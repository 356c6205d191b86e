"""TIES: trim what is small, elect a sign for each entry, average the models that have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from umaf.merging import parts
from umaf.merging.contract import Needs, Passes, PerModel, Span, merge_method, once
from umaf.merging.parts import consensus, kept, l1, per_model, signs_of, thresholds

Elect = Literal["unweighted", "weighted"]
Divisor = Literal["count", "weights"]
Combine = Literal["mean", "sum", "max"]
Rounding = Literal["code", "masked", "down"]


def counts(density: Sequence[float], entries: int, rounding: str) -> list[int]:
    """Tell how many entries each model keeps.

    Example:
        >>> counts([0.2], 64, "down"), counts([0.2], 64, "code"), counts([0.2], 64, "masked")
        ([12], [13], [14])
    """
    if rounding == "code":
        return [entries if share >= 1 else min(entries, int(entries * share) + 1) for share in density]
    if rounding == "masked":
        return [min(entries, entries - int(entries * (1 - share)) + 1) for share in density]
    return [kept(share, entries) for share in density]


def measure(
    passes: Passes,
    *,
    models: int,
    weight: PerModel = 1.0,
    density: PerModel = 0.2,
    elect: Elect = "unweighted",
    tie: Literal["majority", "plus"] = "majority",
    rounding: Rounding = "code",
    rescale: Literal["none", "l1"] = "none",
) -> dict[str, Tensor]:
    """Find the trimming thresholds, `[model]`, and the sign that settles ties, `[]`; with `rescale`, factors `[model]`.

    Example:
        >>> measure(once(torch.tensor([[1.0, 3.0, 2.0]])), models=1, density=0.4)
        {'threshold': tensor([2.]), 'tie': tensor(1.)}
    """
    shares = per_model(density, models)
    threshold = thresholds(passes, lambda entries: counts(shares, entries, rounding))
    found = {"threshold": threshold}
    if rescale == "l1":
        found["factor"] = _factors(passes, threshold)
    majority = torch.ones(())
    if tie == "majority":
        majority = torch.zeros((), dtype=torch.float64)
        for _, chunk in passes():
            signs, _ = signs_of(_trimmed(chunk, found), weight, elect, tie=0.0)
            majority += signs.sum(dtype=torch.float64)
    return {**found, "tie": torch.sign(majority).to(threshold.dtype)}


def _factors(passes: Passes, threshold: Tensor) -> Tensor:
    # What gives the trimmed delta the sum of magnitudes that the whole one has.
    before, after = torch.zeros(2, len(threshold), dtype=torch.float64)
    for _, chunk in passes():
        before += torch.tensor([l1(row) for row in chunk], dtype=torch.float64)
        trimmed = parts.trim(chunk, threshold)
        after += torch.tensor([l1(row) for row in trimmed], dtype=torch.float64)
    return torch.where(after > 0, before / after, 1.0)


def _trimmed(stack: Tensor, measured: Mapping[str, Tensor]) -> Tensor:
    found = parts.trim(stack, measured["threshold"])
    if "factor" in measured:
        for row, factor in zip(found, measured["factor"].tolist(), strict=True):
            row.mul_(factor)
    return found


@merge_method(
    Needs(
        base="required",
        scope="element",
        measure="trim",
        breaks={
            "single": "entries below the threshold are dropped",
            "same": "the same entries are dropped in all",
        },
    ),
    source="Yadav et al. 2023, TIES-Merging, arXiv 2306.01708, algorithm 1",
    measure=measure,
)
def ties(
    deltas: Float[Tensor, " model *shape"],
    *,
    weight: PerModel = 1.0,
    density: Annotated[PerModel, Span(0, 1, open_low=True)] = 0.2,
    trim: Literal["model", "tensor"] = "model",
    elect: Elect = "unweighted",
    tie: Literal["majority", "plus"] = "majority",
    divisor: Divisor = "count",
    combine: Combine = "mean",
    rounding: Rounding = "code",
    rescale: Literal["none", "l1"] = "none",
    measured: Mapping[str, Tensor] | None = None,
) -> Float[Tensor, "*shape"]:
    """Trim each delta to its largest entries, elect a sign per entry, and average the models that have it.

    For models fine-tuned from one base on different tasks, whose small changes are noise and whose large ones pull in
    different directions. Every tensor is merged by this rule, embeddings, norms and heads too.

        t_i = delta_i where |delta_i| >= its k-th largest magnitude, else 0
        s   = sign(sum_i t_i)
        out = sum_{i: sign t_i = s} w_i t_i / (number of such i, or sum of their w_i)

    Four meanings of the name are in use, and two ways of counting; all are here. The defaults are the authors' code.

    | | trim | elect | tie | divisor | rounding |
    |---|---|---|---|---|---|
    | authors, FusionBench (`combine="sum"` there) | model | unweighted | majority | count | code |
    | MergeLM | model | unweighted | majority | count | masked |
    | mergekit | tensor | weighted | plus | weights (`combine="sum"` if `normalize` is off) | down |
    | PEFT (on dense updates) | tensor | unweighted | plus | count | down |
    | MergeLLM | tensor | unweighted | majority | count | masked |

    Args:
        deltas: models minus base.
        weight: what the entries that survive are multiplied by; with `elect="weighted"`, before the election.
        density: share of entries that are kept, in (0, 1]. Entries that equal the smallest kept one all stay: deltas of
            bfloat16 weights have many equal entries, of which mergekit keeps as many as fit, whichever they are.
        trim: the k largest of the whole model, or of each tensor.
        elect: by the sum of trimmed deltas, or of weighted trimmed deltas.
        tie: the sign where the sum is 0: that of most entries (of the model or the tensor, as trimmed), or plus.
        divisor: of the mean: how many models agree, or the sum of their weights.
        combine: "mean", "sum" without a divisor, or "max", the largest of those that agree.
        rounding: "code" keeps int(density n) + 1 entries, as the authors' program does; "masked" n + 1 less
            int((1 - density) n), as MergeLM and MergeLLM do; "down" int(density n), at least one.
        rescale: "l1" multiplies each trimmed delta so that its sum of magnitudes is that of the whole one, over what
            `trim` says (mergekit's `rescale: true`); "none" does not.
        measured: `threshold` `[model]`, `tie` and perhaps `factor` `[model]`, from `measure`; None measures this stack.

    Example:
        >>> stack = torch.tensor([[1.0, -4.0, 0.1], [3.0, 1.0, 0.2]])
        >>> ties(stack, density=0.4)
        tensor([ 2., -4.,  0.])

    Source: Yadav, Tam, Choshen, Raffel, Bansal: TIES-Merging (2023), arXiv 2306.01708; density 0.2 and a scale of 1
    need no validation data. FusionBench measures 72.2 % on 8 CLIP ViT-B/32 tasks at a scale of 0.3 (task arithmetic
    68.0 %, average of weights 66.5 %, the experts themselves 90.3 %).
    """
    if measured is None:
        measured = measure(
            once(deltas),
            models=deltas.shape[0],
            weight=weight,
            density=density,
            elect=elect,
            tie=tie,
            rounding=rounding,
            rescale=rescale,
        )
    trimmed = _trimmed(deltas, measured)
    sign = float(measured["tie"])
    return consensus(trimmed, weight, elect=elect, divisor=divisor, combine=combine, tie=sign)
