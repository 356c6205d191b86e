"""PCB: weigh every entry of every model by its size and by how far the other models agree, and drop the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from umaf.merging.contract import Needs, Passes, PerModel, Span, merge_method, once
from umaf.merging.parts import magnitudes, per_model, weighted_sum
from umaf.tensors.select import kth_largest

Reading = Literal["code", "paper"]
_EDGE = 0.0001  # share of smallest and largest magnitudes that the authors' program clamps


def measure(
    passes: Passes, *, models: int, density: PerModel = 0.1, reading: Reading = "code"
) -> dict[str, Tensor]:
    """Find the bounds and sums that the scores need, and the score from which entries stay.

    Example:
        >>> found = measure(once(torch.tensor([[1.0, 2.0], [1.0, 1.0]])), models=2)
        >>> sorted(found)
        ['high', 'low', 'most', 'stay']
    """
    shares = per_model(density, models)
    found = _bounds(passes) if reading == "code" else _sums(passes, models)

    def scores() -> Iterator[Tensor]:
        for _, chunk in passes():
            yield score(chunk.flatten(1), found, reading)[0]

    def ranks(entries: int) -> list[list[int]]:
        # The entry at index int(n (1 - density)) in ascending order is the smallest that stays.
        return [[1, entries - min(entries - 1, int(entries * (1 - share)))] for share in shares]

    most, stay = kth_largest(scores, ranks).unbind(1)
    return {**found, "most": most, "stay": stay}


def score(stack: Tensor, found: Mapping[str, Tensor], reading: Reading) -> tuple[Tensor, Tensor]:
    """Score every entry of every model.

    Args:
        stack: `[model, *shape]`.
        found: bounds and sums, from `measure`.
        reading: see `pcb`.

    Returns:
        The scores and the deltas that they weigh (clamped, as in the authors' program), `[model, *shape]` both.

    Example:
        >>> stack = torch.tensor([[1.0, 2.0], [1.0, 1.0]])
        >>> score(stack, measure(once(stack), models=2), "code")[0].argmax(1)
        tensor([1, 1])
    """
    return _score_code(stack, found) if reading == "code" else (_score_paper(stack, found), stack)


def _bounds(passes: Passes) -> dict[str, Tensor]:
    def ranks(entries: int) -> list[list[int]]:
        low, high = int(entries * _EDGE), max(0, int(entries * (1 - _EDGE) - 1))
        return [[entries - low, entries - high]] * models

    models = 0

    def chunks() -> Iterator[Tensor]:
        nonlocal models
        for chunk in magnitudes(passes)():
            models = chunk.shape[0]
            yield chunk.flatten(1)

    low, high = kth_largest(chunks, ranks).unbind(1)
    return {"low": low, "high": high}


def _score_code(stack: Tensor, found: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    models, total = stack.shape[0], weighted_sum(stack, 1.0)
    scores, clamped = torch.empty_like(stack), torch.empty_like(stack)
    bounds = zip(found["low"].tolist(), found["high"].tolist(), strict=True)
    for row, target, shown, (low, high) in zip(stack, scores, clamped, bounds, strict=True):
        torch.abs(row, out=shown).clamp_(low, high)
        size = torch.sub(shown, low, out=target).div_(high - low) if high > low else target.zero_()
        size.square_().mul_(models).exp_()
        size.mul_(torch.tanh(row * total))
        shown.mul_(torch.sign(row))
    return scores, clamped


def _sums(passes: Passes, models: int) -> dict[str, Tensor]:
    least = torch.full((models, models), torch.inf)
    most = -least
    for _, chunk in passes():
        for i, j, product in _products(chunk.flatten(1)):
            least[i, j] = torch.minimum(least[i, j], product.min())
            most[i, j] = torch.maximum(most[i, j], product.max())
    spread = (most - least).where(most > least, torch.ones(()))
    intra, inter = torch.zeros(models, dtype=torch.float64), torch.zeros(models, models, dtype=torch.float64)
    for _, chunk in passes():
        for i, j, product in _products(chunk.flatten(1)):
            scaled = product.sub_(least[i, j]).div_(spread[i, j])
            inter[i, j] += scaled.exp().sum(dtype=torch.float64)
            if i == j:
                intra[i] += scaled.mul_(models).exp_().sum(dtype=torch.float64)
    both = (least.triu() + least.triu(1).T, spread.triu() + spread.triu(1).T, inter.triu() + inter.triu(1).T)
    # Divided by their mean, the sums keep scores near 1, whatever the number of entries.
    mean = inter.diagonal().mean()
    return {"least": both[0], "spread": both[1], "inter": both[2] / mean, "intra": intra / mean}


def _products(rows: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    for i, one in enumerate(rows if rows.numel() else []):
        for j in range(i, len(rows)):
            yield i, j, one * rows[j]


def _score_paper(stack: Tensor, found: Mapping[str, Tensor]) -> Tensor:
    models, scores = stack.shape[0], torch.empty_like(stack)
    least, spread = found["least"].tolist(), found["spread"].tolist()
    for i, one in enumerate(stack):
        agree = torch.zeros_like(one)
        for j, other in enumerate(stack):
            scaled = (one * other).sub_(least[i][j]).div_(spread[i][j])
            if i == j:
                torch.mul(scaled, models, out=scores[i]).exp_().div_(float(found["intra"][i]))
            agree.add_(scaled.exp_(), alpha=1 / float(found["inter"][i, j]))
        scores[i].mul_(agree)
    return scores


@merge_method(
    Needs(
        base="required",
        scope="element",
        measure="over",
        breaks={"single": "entries of low score are dropped", "same": "the same entries are dropped in all"},
    ),
    source="Du et al. 2024, Parameter Competition Balancing (PCB-Merging), arXiv 2410.02396, section 4",
    measure=measure,
)
def pcb(
    deltas: Float[Tensor, " model *shape"],
    *,
    weight: PerModel = 1.0,
    density: Annotated[PerModel, Span(0, 1, open_low=True)] = 0.1,
    reading: Reading = "code",
    over: Literal["model", "tensor"] = "model",
    measured: Mapping[str, Tensor] | None = None,
) -> Float[Tensor, "*shape"]:
    """Weigh each entry of each model by its size and by its agreement with the others; drop those of low score.

    For models of different tasks that compete for the same entries. Every tensor is merged by this rule; ranks are
    those of the whole model.

    reading="code", the authors' program, N models, minmax over the entries of a model:

        a_i = |delta_i| clamped to its quantiles 0.0001 and 0.9999, t_i = a_i sign(delta_i)
        b_i = exp(N minmax(a_i)^2) tanh(delta_i sum_j delta_j)
        c_i = minmax(b_i clamped from below at the (1 - density) quantile of b_i)
        out = sum_i w_i c_i t_i / max(sum_i c_i, 1e-12)

    reading="paper", softmax over the entries too:

        b_i = softmax(N minmax(delta_i^2)) sum_j softmax(minmax(delta_i delta_j))
        c_i = b_i where it is at least its (1 - density) quantile, else 0
        out = sum_i w_i c_i delta_i / sum_i c_i, 0 where all c_i are 0

    The tanh is nearly linear for the small products of deltas; the paper's softmax is nearly flat. The two keep
    different entries.

    Args:
        deltas: models minus base.
        weight: of each model in the numerator (the authors search it between 0.8 and 1.3 on validation data).
        density: share of entries that count, in (0, 1]: 0.05 for image models, 0.1 to 0.2 for T5.
        reading: see above.
        over: quantiles and sums of the whole model, as published, or of each tensor.
        measured: bounds, from `measure`; None measures this stack.

    Example:
        >>> pcb(torch.tensor([[1.0, 4.0, 0.1], [1.0, -2.0, 0.1]]), density=0.5)
        tensor([1., 1., 0.])

    Source: Du et al.: Parameter Competition Balancing for Model Merging (NeurIPS 2024), arXiv 2410.02396, section 4;
    76.3 % on 8 CLIP ViT-B/32 tasks at a scale of 1.2.
    """
    if measured is None:
        measured = measure(once(deltas), models=deltas.shape[0], density=density, reading=reading)
    scores, shown = score(deltas, measured, reading)
    bounds = zip(measured["stay"].tolist(), measured["most"].tolist(), strict=True)
    for row, own, (stay, most) in zip(scores, deltas, bounds, strict=True):
        if reading == "paper":
            row.mul_(row >= stay)
        elif most <= stay:
            # All scores that stay are equal; an expert that is the base has none.
            row.copy_((row >= stay) & (own != 0))
        else:
            row.sub_(stay).clamp_(min=0).div_(most - stay)
    divisor = weighted_sum(scores, 1.0)
    merged = weighted_sum(scores.mul_(shown), weight)
    if reading == "paper":
        return merged.div_(divisor.add_(torch.eq(divisor, 0)))
    return merged.div_(divisor.clamp_(min=1e-12))
