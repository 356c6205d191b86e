"""Ranks for many matrices under one budget: the singular values that hold most for what they cost come first."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from umaf.errors import ConfigError


def allocate_ranks(spectra: Mapping[str, Tensor], costs: Mapping[str, int], *, budget: int) -> dict[str, int]:
    """Choose the rank of every matrix so that as much squared norm as possible is kept within a budget.

    Every singular value is an item that is worth its square and costs what one more rank of its matrix costs (bytes of
    a row and a column). Items are taken by worth per cost, the largest first; equal ones in the order of the names.
    One that no longer fits closes its matrix, and smaller matrices may still use what is left. Without a remainder
    this is the optimum; the same input always gives the same ranks.

    Args:
        spectra: singular values of each matrix, `[rank]`, falling.
        costs: of one more rank of each matrix, in the unit of the budget; above 0.
        budget: what all ranks together may cost.

    Returns:
        A rank for each name, 0 to the number of its singular values that are not zero.

    Raises:
        ConfigError: a matrix has no cost above 0, or the budget is negative.

    Example:
        >>> spectra = {"up": torch.tensor([3.0, 1.0]), "down": torch.tensor([2.0, 2.0])}
        >>> allocate_ranks(spectra, {"up": 10, "down": 10}, budget=30)
        {'up': 1, 'down': 2}
    """
    if budget < 0:
        raise ConfigError(f"The budget for ranks must not be negative, got {budget}.")
    wrong = sorted(name for name in spectra if costs.get(name, 0) <= 0)
    if wrong:
        raise ConfigError(
            f"The matrix {wrong[0]} needs a cost above 0 for each rank, got {costs.get(wrong[0])}."
        )
    items = [
        (-(float(value) ** 2) / costs[name], name, place)
        for name, values in spectra.items()
        for place, value in enumerate(values.double().tolist())
        if value > 0
    ]
    ranks, left, closed = dict.fromkeys(spectra, 0), budget, set()
    for _, name, place in sorted(items):
        if name in closed or place != ranks[name]:
            continue
        if costs[name] > left:
            closed.add(name)
            continue
        ranks[name] += 1
        left -= costs[name]
    return ranks


def rank_for_energy(values: Tensor, share: float) -> int:
    """Give the smallest rank that keeps a share of the squared norm.

    Args:
        values: `[rank]`, falling.
        share: in [0, 1].

    Returns:
        0 for a matrix of zeros.

    Example:
        >>> rank_for_energy(torch.tensor([3.0, 1.0, 1.0]), 0.9)
        2
    """
    energy = values.double().square().cumsum(0)
    if len(energy) == 0 or energy[-1] == 0:
        return 0
    return int(torch.searchsorted(energy, share * energy[-1] * (1 - 1e-12))) + (1 if share > 0 else 0)
