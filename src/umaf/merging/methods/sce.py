"""SCE: select the entries in which models differ, calculate a weight for each model, erase minority signs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from umaf.merging.contract import Needs, Passes, Span, merge_method, once
from umaf.merging.parts import disjoint, elect, mapped, shares, squares
from umaf.tensors.select import Bounds, kth_largest

NEAR = 1 << 20
"""Entries near the threshold that are kept until it is known, at most; with more, the data are gone through again."""


def variance(stack: Tensor) -> Tensor:
    """Give the variance over models (divided by their number) of each entry.

    Args:
        stack: `[model, *shape]`.

    Returns:
        `[*shape]`, non-negative; 0 where all models are equal.

    Example:
        >>> variance(torch.tensor([[1.0, 2.0], [3.0, 2.0]]))
        tensor([1., 0.])
    """
    models = stack.shape[0]
    # Differences from the first model: their sum of squares exceeds the variance N times at most, so subtracting the
    # mean loses no digits, and where all models are equal the variance is 0 and no rounding error.
    if models == 1:
        return torch.zeros_like(stack[0])
    total = torch.sub(stack[1], stack[0])
    squared, apart = torch.mul(total, total), torch.empty_like(total)
    for row in stack[2:]:
        total.add_(torch.sub(row, stack[0], out=apart))
        squared.addcmul_(apart, apart)
    return squared.addcmul_(total, total, value=-1 / models).clamp_(min=0).div_(models)


def measure(passes: Passes, *, models: int, select_topk: float = 0.1) -> dict[str, Tensor]:
    """Find the variance from which entries are selected, `[]`, and the share of each model, `[model]`.

    Example:
        >>> found = measure(once(torch.tensor([[1.0, 2.0], [0.0, 1.0]])), models=2, select_topk=1.0)
        >>> found["share"]
        tensor([0.8333, 0.1667], dtype=torch.float64)
    """
    if select_topk >= 1:
        sums = sum((squares(chunk) for _, chunk in passes()), torch.zeros(models, dtype=torch.float64))
        return {"variance": torch.tensor(-1.0), "share": shares(sums)}
    spread = _Spread(models, select_topk)
    least = kth_largest(mapped(passes, spread), spread.ranks, watch=spread.watch)[0, 0]
    sums = spread.squares(float(least))
    if sums is None:
        sums = torch.zeros(models, dtype=torch.float64)
        for _, chunk in passes():
            sums += squares_of(chunk, least)
    return {"variance": least, "share": shares(sums)}


def selected(stack: Tensor, least: Tensor) -> Tensor:
    """Set to zero, in all models, the entries whose variance is below `least`.

    Returns:
        A new stack.

    Example:
        >>> selected(torch.tensor([[1.0, 2.0], [3.0, 2.0]]), torch.tensor(0.5))
        tensor([[1., 0.],
                [3., 0.]])
    """
    mark = variance(stack)
    return stack * torch.ge(mark, float(least), out=mark)


def squares_of(stack: Tensor, least: Tensor) -> Tensor:
    """Sum the squares of what `selected` leaves, `[model]`, in float64; one model after another.

    Example:
        >>> squares_of(torch.tensor([[1.0, 2.0], [3.0, 2.0]]), torch.tensor(0.5))
        tensor([1., 9.], dtype=torch.float64)
    """
    mark = variance(stack)
    return _masked_squares(stack, torch.ge(mark, float(least), out=mark))


def _masked_squares(stack: Tensor, mask: Tensor) -> Tensor:
    room = torch.empty_like(mask)
    return torch.cat([squares(torch.mul(row, mask, out=room)[None]) for row in stack.unbind(0)])


class _Spread:
    """The variances of chunks, and of what will be selected the squares, in the pass that finds the threshold.

    Above the bounds between which the threshold is looked for all entries will be selected, and their squares are added
    up; those between them, one in a hundred, are kept until it is known.
    """

    def __init__(self, models: int, share: float) -> None:
        self._models, self._share = models, share
        self._varied = self._seen = 0
        self.watch([[(np.inf, -np.inf)]])

    def __call__(self, chunk: Tensor) -> Tensor:
        """Give the variances `[1, entry]` of a chunk."""
        stack = chunk.flatten(1)
        found = variance(stack)
        self._varied += int(torch.count_nonzero(found))
        self._seen += found.numel()
        if self._low <= self._high:
            self._add(stack, found)
        return found[None]

    def ranks(self, entries: int) -> list[list[int]]:
        """Give the rank of the threshold among `entries`."""
        # After a thin pass the entries that vary are guessed, after a whole one they have been counted.
        wanted = [[int(self._varied * entries // self._seen * self._share)]] if self._seen else [[0]]
        self._varied = self._seen = 0
        return wanted

    def watch(self, bounds: Bounds) -> None:
        """Begin a pass with other bounds."""
        self._low, self._high = bounds[0][0]
        self._sums = torch.zeros(self._models, dtype=torch.float64)
        self._near: list[np.ndarray] = []
        self._left = NEAR

    def _add(self, stack: Tensor, found: Tensor) -> None:
        marks = found.numpy()
        near = np.flatnonzero((marks >= self._low) & (marks <= self._high))
        self._left -= near.size
        if self._left < 0:
            self._near = []
            return
        self._near.append(np.vstack([marks[near], stack.numpy()[:, near]]))
        self._sums += _masked_squares(stack, torch.gt(found, self._high, out=torch.empty_like(found)))

    def squares(self, least: float) -> Tensor | None:
        """Give the sums of squares `[model]` of what is selected; None where the last pass did not see to it."""
        if self._left < 0 or not self._low <= least <= self._high:
            return None
        near = np.concatenate(self._near, axis=1)
        chosen = near[1:, near[0] >= least].astype(np.float64)
        return self._sums + torch.from_numpy(np.square(chosen).sum(1))


@merge_method(
    Needs(
        base="required",
        scope="element",
        breaks={
            "single": 'with select="deltas" only what differs between models is merged',
            "same": 'with select="deltas" only what differs between models is merged',
        },
    ),
    source="Wan et al. 2024, FuseChat, arXiv 2408.07990 (SCE)",
    measure=measure,
)
def sce(
    deltas: Float[Tensor, " model *shape"],
    *,
    select_topk: Annotated[float, Span(0, 1, open_low=True)] = 0.1,
    select: Literal["weights", "deltas"] = "weights",
    measured: Mapping[str, Tensor] | None = None,
) -> Float[Tensor, "*shape"]:
    """Weigh the models of each tensor by the entries in which they differ most, and average the majority's sign.

    For chat models that were fused from several sources into one shape; no weights need be chosen. Every tensor is
    merged by this rule, with weights of its own.

        S = the select_topk share of entries of largest variance over models (of those that vary at all)
        w_i = sum_S delta_i^2 / sum_j sum_S delta_j^2, equal where that is 0/0
        s = sign(sum_i delta_i), 0 counting as plus
        out = sum_{i: sign delta_i = s} w_i delta_i / sum of the same w_i

    Args:
        deltas: models minus base.
        select_topk: share of the entries that vary, in (0, 1]: int(share count) of them; entries with the variance
            of one that is selected are selected too.
        select: "weights": the selection makes the weights, and all entries are merged (the authors' program).
            "deltas": entries outside the selection stay at the base too, before the election (mergekit; unlike
            there, weights are equal only where all deltas are 0, not where their mean square is below 1e-6, which is
            most fine-tuned tensors).
        measured: `variance` `[]` and `share` `[model]`, from `measure`; None measures this stack.

    Example:
        >>> sce(torch.tensor([[1.0, 2.0], [-1.0, 1.0]]), select_topk=1.0)
        tensor([1.0000, 1.7143])

    Source: Wan, Zhong, Yang, Chen, Quan: FuseChat (2024), arXiv 2408.07990; the selected share is 0.1 there.
    """
    if measured is None:
        measured = measure(once(deltas), models=deltas.shape[0], select_topk=select_topk)
    chosen = select == "deltas" and select_topk < 1
    stack = selected(deltas, measured["variance"]) if chosen else deltas
    share = measured["share"].tolist()
    return disjoint(stack, elect(stack), weight=share, share=share)
