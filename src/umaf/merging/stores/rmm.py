"""RMM: low-rank deltas in a basis that the experts share, from which each comes back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from umaf.merging.contract import Span
from umaf.merging.stores.packer import Packer, Parts


def rmm(
    deltas: Float[Tensor, " expert *shape"],
    *,
    rank: Annotated[int, Span(1)] = 16,
    basis: Annotated[int, Span(0)] = 2,
) -> dict[str, Tensor]:
    """Write every row of the experts' low-rank factors in an affine basis that all experts share.

    A delta of rank at most `rank` becomes `up @ down` by its singular values, split evenly; the signs of the singular
    vectors, and their order, follow the first expert, because a basis of rows means something only when rows do. For
    each row of `up` and each column of `down` the experts' vectors are their mean plus `basis` principal directions.
    With `basis >= experts - 1` (or `>= rank`) every expert comes back exactly, up to its rank.

    Args:
        deltas: one per expert; LoRAs, or fine-tuned weights that are cut to the rank.
        rank: at least 1.
        basis: principal directions per row, at least 0; 0 is the average of factors.

    Returns:
        For matrices, and for up and down each: "mean" `[row, rank]`, "basis" `[row, rank, basis]` and "place"
        `[row, basis, expert]`, in float32. Other tensors whole, as "own" in float32.

    Source: Reversible Model Merging for Low-Rank Weights, 2025, arXiv 2510.14163; read as principal components, which
    gives the storage that it states, `(p (r + n) + r) / (r n)` of the factors.

    Example:
        >>> deltas = torch.stack([torch.diag(torch.tensor([3.0, 2.0, 0.0])), torch.diag(torch.tensor([1.0, 5.0, 0.0]))])
        >>> parts = rmm(deltas, rank=2, basis=1)
        >>> torch.allclose(unpack(parts, torch.tensor([0.0, 1.0]), (3, 3), {}), deltas[1], atol=1e-5)
        True
    """
    if deltas.ndim != 3:
        return {"own": deltas.clone()}
    ups, downs = _factors(deltas, min(rank, *deltas.shape[1:]))
    return {**_shared("up", ups, basis), **_shared("down", downs, basis)}


def unpack(parts: Parts, weights: Tensor, shape: Sequence[int], totals: Parts) -> Tensor:
    """Give a weighted sum of the experts back, `[*shape]` float32.

    Example: see `rmm`.
    """
    if "own" in parts:
        return torch.tensordot(weights.float(), parts["own"], 1)
    delta = torch.zeros(tuple(shape))
    for number in weights.nonzero().flatten().tolist():
        delta += weights[number] * (factor(parts, "up", number) @ factor(parts, "down", number).T)
    return delta


def factor(parts: Parts, side: str, expert: int) -> Tensor:
    """Give one factor of one expert back: "up" is `[out, rank]`, "down" is `[in, rank]`."""
    return parts[f"{side}.mean"] + (
        parts[f"{side}.basis"] @ parts[f"{side}.place"][..., expert, None]
    ).squeeze(-1)


def _factors(deltas: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    left, values, right = torch.linalg.svd(deltas, full_matrices=False)
    root = values[:, None, :rank].sqrt()
    ups, downs = left[..., :rank] * root, right[:, :rank].mT * root
    for number in range(1, len(deltas)):
        likeness = ups[0].T @ ups[number] + downs[0].T @ downs[number]
        # Pairs are matched once each, the most alike first: an order that depends on nothing but the numbers.
        order, signs = torch.zeros(rank, dtype=torch.long), torch.ones(rank)
        size = likeness.abs().clone()
        for _ in range(rank):
            place = int(size.argmax())
            row, column = divmod(place, rank)
            order[row], signs[row] = column, 1.0 if likeness[row, column] >= 0 else -1.0
            size[row], size[:, column] = -1.0, -1.0
        ups[number], downs[number] = ups[number][:, order] * signs, downs[number][:, order] * signs
    return ups, downs


def _shared(side: str, vectors: Tensor, basis: int) -> dict[str, Tensor]:
    """Principal components of `[expert, row, rank]` over experts, row by row."""
    mean = vectors.mean(0)
    centred = (vectors - mean).permute(1, 2, 0)
    left, values, right = torch.linalg.svd(centred, full_matrices=False)
    kept = min(basis, left.shape[-1])
    place = values[:, :kept, None] * right[:, :kept]
    return {f"{side}.mean": mean, f"{side}.basis": left[..., :kept].contiguous(), f"{side}.place": place}


PACKER = Packer(rmm, unpack, "Reversible Model Merging for Low-Rank Weights, 2025, arXiv 2510.14163")
