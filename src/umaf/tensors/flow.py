"""Least squares on a matrix that asks for products with given rows: solved, stopped early, or descended.

The problem is to minimise `sum_i w_i |(X - T_i) R_i^T|^2` over X, where the targets T_i are `[out, in]` and the rows
R_i `[row, in]`. With `C = sum_i w_i R_i^T R_i = V diag(l) V^T`, the gradient flow that starts from X0 and runs for a
time t (at half the gradient) ends at

    X = X0 + (D - X0 C) V diag((1 - exp(-l t)) / l) V^T,        D = sum_i w_i T_i R_i^T R_i,

a filter on the spectrum of C: large eigenvalues are solved for, small ones stay near the start. Everything is computed
in float64, on the shorter of the two sides that C can be written on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from umaf.tensors.svd import gram

Gain = Callable[[Tensor], Tensor]
"""From eigenvalues `[*batch, rank]`, falling, to what the residual is multiplied by in each direction."""


def filtered(start: Tensor, targets: Tensor, rows: Tensor, weights: Tensor, *, gain: Gain) -> Tensor:
    """Move a matrix towards the solution of the least squares, by a gain in each direction of its rows.

    Args:
        start: `[*batch, out, in]`, X0.
        targets: `[model, *batch, out, in]`, T.
        rows: `[model, *batch, row, in]`, R.
        weights: `[model, *batch]`, w, not negative.
        gain: gives (1 - exp(-l t)) / l, 1 / l or whatever else is wanted, of the eigenvalues l of C; those that are
            rounding are 0 and should get 0, which :func:`inverse` and :func:`relaxed` do.

    Returns:
        `[*batch, out, in]` in the dtype of `start`.

    Example:
        >>> import torch
        >>> one = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]])
        >>> filtered(torch.zeros(2, 2), one, one, torch.ones(1), gain=inverse).tolist()
        [[2.0, 0.0], [0.0, 1.0]]
    """
    width, height = rows.shape[-1], rows.shape[-2] * rows.shape[0]
    move = _on_columns if width <= height else _on_rows
    return start + move(start, targets, rows, weights.double(), gain).to(start.dtype)


def inverse(values: Tensor) -> Tensor:
    """Give the gain that solves the least squares: 1 / l, and 0 for 0.

    Example:
        >>> inverse(torch.tensor([4.0, 0.0]))
        tensor([0.2500, 0.0000])
    """
    return torch.where(values > 0, 1 / values.where(values > 0, values.new_ones(())), 0.0)


def relaxed(time: float) -> Gain:
    """Give the gain of a gradient flow that is stopped: (1 - exp(-l t)) / l, and 0 for 0.

    Args:
        time: t, not negative.

    Example:
        >>> round(float(relaxed(1.0)(torch.tensor([1.0]))), 4)
        0.6321
    """
    return lambda values: -torch.expm1(-time * values) * inverse(values)


def descended(
    start: Tensor,
    targets: Tensor,
    rows: Tensor,
    weights: Tensor,
    *,
    steps: int,
    rate: float,
    rule: Literal["adam", "sgd"] = "adam",
) -> Tensor:
    """Descend the gradient of the least squares step by step, as published programs do.

    Args:
        start: `[*batch, out, in]`.
        targets: `[model, *batch, out, in]`.
        rows: `[model, *batch, row, in]`.
        weights: `[model, *batch]`.
        steps: how many.
        rate: learning rate.
        rule: "adam" (0.9, 0.999, 1e-8) or "sgd" with a momentum of 0.9.

    Returns:
        `[*batch, out, in]`.

    Example:
        >>> import torch
        >>> one = torch.eye(2)[None]
        >>> found = descended(torch.zeros(2, 2), one, one, torch.ones(1), steps=200, rate=0.05)
        >>> bool((found - torch.eye(2)).abs().max() < 0.01)
        True
    """
    found = start.clone()
    weighted = rows * weights[..., None, None].to(rows.dtype)
    if rule == "adam":
        optimiser: torch.optim.Optimizer = torch.optim.Adam([found], lr=rate)
    else:
        optimiser = torch.optim.SGD([found], lr=rate, momentum=0.9)
    for _ in range(steps):
        gradient = torch.zeros_like(found)
        for target, row, scaled in zip(targets, rows, weighted, strict=True):
            gradient += (found - target) @ row.mT @ scaled
        found.grad = gradient.mul_(2)
        optimiser.step()
    return found.detach()


def _on_columns(start: Tensor, targets: Tensor, rows: Tensor, weights: Tensor, gain: Gain) -> Tensor:
    """Use C as it stands, `[in, in]`."""
    moment = start.new_zeros(*start.shape[:-2], start.shape[-1], start.shape[-1], dtype=torch.float64)
    residual = torch.zeros_like(start, dtype=torch.float64)
    for target, row, weight in zip(targets, rows, weights, strict=True):
        own = gram(row.mT) * weight[..., None, None]
        moment += own
        residual += (target.double() - start.double()) @ own
    values, vectors = _spectrum(moment)
    return residual @ (vectors * gain(values).unsqueeze(-2)) @ vectors.mT


def _on_rows(start: Tensor, targets: Tensor, rows: Tensor, weights: Tensor, gain: Gain) -> Tensor:
    """Use the Gram matrix of all rows instead, `[row, row]`; it has the eigenvalues of C that are not zero."""
    roots = weights.sqrt()[..., None, None]
    scaled = torch.cat(tuple(rows.double() * roots), dim=-2)
    residual = torch.cat(tuple((targets.double() - start.double()) @ rows.double().mT * roots), dim=-1)
    values, vectors = _spectrum(gram(scaled))
    return (residual @ (vectors * gain(values).unsqueeze(-2)) @ vectors.mT) @ scaled


def _spectrum(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    """Give eigenvalues, falling, with zero for what is rounding of float32 rows, and their vectors."""
    values, vectors = torch.linalg.eigh(symmetric)
    values, vectors = values.flip(-1), vectors.flip(-1)
    size = max(1, values.shape[-1])
    smallest = (4 * torch.finfo(torch.float32).eps) ** 2 * size * values[..., :1]
    return values.where(values > smallest, values.new_zeros(())), vectors
