"""Prototypes of answers: what a base says to known requests of each kind, and which of them a new answer is nearest to.

A small base has strong tastes among names, and different ones after different texts; taking off what it says to a
text without content does not make its likeliest name the right one. What it says to requests of one kind is still
alike. So a few known requests of each kind give a centre of scores, all of them together one covariance, and a request
belongs to the centre it is nearest to by that; to none, where it is farther off than known requests are from their own.

Source: Han et al., Prototypical Calibration for Few-shot Learning of Language Models, 2022; there clusters of
unlabelled answers, here of labelled ones, so that clusters need no names of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SHRINK = 0.3
"""Share of the covariance that is replaced by an even one; a few requests do not tell it well."""
FAR = 0.95
"""Share of known requests that are nearer to their own centre than the limit, each of them left out of the fit."""


@dataclass(frozen=True)
class Prototypes:
    """Centres of what is said to requests of several kinds.

    Attributes:
        centres: ``[kind, score]``.
        precision: inverse of the covariance around them, ``[score, score]``.
        limit: squared distance beyond which a request is of none of the kinds.
    """

    centres: Tensor
    precision: Tensor
    limit: float


def fit_prototypes(scores: Sequence[Tensor]) -> Prototypes:
    """Fit centres, a covariance and the limit.

    Args:
        scores: of each kind's known requests, ``[request, score]``, at least two of each.

    Example:
        >>> near, far = torch.tensor([[0.0], [0.2], [0.1]]), torch.tensor([[5.0], [5.2], [5.1]])
        >>> shares_of(fit_prototypes([near, far]), torch.tensor([[0.1], [5.0], [99.0]])).argmax(1).tolist()
        [0, 1, 2]
    """
    parts = [part.double() for part in scores]
    centres, precision = _fit(parts)
    apart = []
    for kind, part in enumerate(parts):
        for out in range(len(part)):
            rest = torch.cat([part[:out], part[out + 1 :]])
            others = [rest if at == kind else one for at, one in enumerate(parts)]
            apart.append(float(_squared(*_fit(others), part[out : out + 1])[0, kind]))
    limit = float(torch.tensor(apart, dtype=torch.float64).quantile(FAR))
    return Prototypes(centres, precision, limit)


def shares_of(prototypes: Prototypes, scores: Tensor) -> Tensor:
    """Turn scores into beliefs: equally likely normal distributions around the centres, and the limit for none.

    Args:
        prototypes: what `fit_prototypes` gave.
        scores: ``[request, score]``.

    Returns:
        ``[request, kind and none]``, each row adding up to one; none is the largest beyond the limit only.
    """
    apart = _squared(prototypes.centres, prototypes.precision, scores.double())
    none = torch.full((len(apart), 1), prototypes.limit, dtype=apart.dtype)
    return (-torch.cat([apart, none], 1) / 2).softmax(1).float()


def _fit(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    centres = torch.stack([part.mean(0) for part in parts])
    around = torch.cat([part - centre for part, centre in zip(parts, centres, strict=True)])
    covariance = around.T @ around / max(1, len(around) - len(parts))
    even = torch.eye(len(covariance), dtype=covariance.dtype) * covariance.diagonal().mean().clamp(min=1e-6)
    return centres, torch.linalg.inv((1 - SHRINK) * covariance + SHRINK * even)


def _squared(centres: Tensor, precision: Tensor, scores: Tensor) -> Tensor:
    """Squared Mahalanobis distances, ``[request, kind]``."""
    gap = scores[:, None] - centres[None]
    return ((gap @ precision) * gap).sum(-1)
