"""Losses that bring fingerprints of one capability together, whatever model they come from."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


def info_nce(
    vectors: Float[Tensor, "row out"], groups: Int[Tensor, " row"], *, temperature: float = 0.1
) -> Tensor:
    """Contrast each row with all others: its positives are the rows of its group.

    The mean over positives of the log-probability stands outside the logarithm, so each positive counts.

    Args:
        vectors: rows of length 1.
        groups: number of each row's capability.
        temperature: of the softmax over cosines, above 0.

    Returns:
        The mean over rows that have a positive; 0 where none has.

    Source: van den Oord et al., 2018, equation 4; several positives: Khosla et al., Supervised contrastive
    learning, NeurIPS 2020, equation 2.

    Example:
        >>> rows = torch.eye(2)[[0, 0, 1, 1]]
        >>> float(info_nce(rows, torch.tensor([0, 0, 1, 1]))) < float(info_nce(rows, torch.tensor([0, 1, 0, 1])))
        True
    """
    own = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    alike = (groups[:, None] == groups) & ~own
    scores = (vectors @ vectors.mT / temperature).masked_fill(own, float("-inf")).log_softmax(1)
    counts = alike.sum(1)
    each = -scores.masked_fill(~alike, 0.0).sum(1) / counts.clamp_min(1)
    return each[counts > 0].mean() if bool((counts > 0).any()) else vectors.sum() * 0.0


def multi_similarity(
    vectors: Float[Tensor, "row out"],
    groups: Int[Tensor, " row"],
    *,
    alpha: float = 2.0,
    beta: float = 40.0,
    bound: float = 0.5,
    margin: float = 0.1,
) -> Tensor:
    """Weigh the pairs that are hard: negatives nearer than the furthest positive, and the reverse.

    Args:
        vectors: rows of length 1.
        groups: number of each row's capability.
        alpha: how sharply positives below the bound are weighed.
        beta: how sharply negatives above it are.
        bound: the cosine that parts positives from negatives.
        margin: how much nearer than needed a pair may be and still count as hard.

    Returns:
        The mean over all rows; one without a hard positive and a hard negative counts 0.

    Source: Wang et al., Multi-similarity loss with general pair weighting, CVPR 2019, equations 11 to 15.

    Example:
        >>> rows = torch.eye(2)[[0, 0, 1, 1]]
        >>> float(multi_similarity(rows, torch.tensor([0, 0, 1, 1])))
        0.0
    """
    cosines = vectors @ vectors.mT
    same = groups[:, None] == groups
    # A row is no positive of itself, nor is its copy.
    positive, negative = same & (cosines < 1 - 1e-5), ~same
    furthest = cosines.masked_fill(~positive, float("inf")).amin(1, keepdim=True)
    nearest = cosines.masked_fill(~negative, float("-inf")).amax(1, keepdim=True)
    hard_positive = positive & (cosines - margin < nearest)
    hard_negative = negative & (cosines + margin > furthest)
    both = hard_positive.any(1) & hard_negative.any(1)
    pull = (-alpha * (cosines - bound)).exp().masked_fill(~hard_positive, 0.0).sum(1).log1p() / alpha
    push = (beta * (cosines - bound)).exp().masked_fill(~hard_negative, 0.0).sum(1).log1p() / beta
    return ((pull + push) * both).mean()


def base_covariance(vectors: Float[Tensor, "row out"], bases: Int[Tensor, " row"]) -> Tensor:
    """Measure how far the mean fingerprint of each base lies from the mean of all.

    It is the squared covariance of the fingerprint with the base's indicator, so that no linear reader finds the base
    where it is 0.

    Args:
        vectors: rows of length 1.
        bases: number of each row's base model.

    Returns:
        The mean over bases of the squared distance, at least 0.

    Example:
        >>> float(base_covariance(torch.eye(2)[[0, 1, 0, 1]], torch.tensor([0, 0, 1, 1])))
        0.0
    """
    middle = vectors.mean(0)
    kinds = bases.unique()
    means = torch.stack([vectors[bases == kind].mean(0) for kind in kinds])
    return (means - middle).square().sum(1).mean()


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return vectors.view_as(vectors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


def reversed_gradient(vectors: Tensor, strength: float = 1.0) -> Tensor:
    """Pass numbers on, and turn the gradient that comes back.

    What reads the result learns to tell something (the base model); what made it learns to hide it.

    Source: Ganin and Lempitsky, Unsupervised domain adaptation by backpropagation, ICML 2015, equation 10.

    Example:
        >>> x = torch.ones(1, requires_grad=True)
        >>> reversed_gradient(x, 0.5).sum().backward()
        >>> float(x.grad)
        -0.5
    """
    return _Reverse.apply(vectors, strength)  # type: ignore[return-value]


def additivity(together: Tensor, parts: Tensor) -> Tensor:
    """Measure by how much a fingerprint of two capabilities misses the direction of their sum.

    Args:
        together: `[pair, 512]`, fingerprints of two capabilities at once.
        parts: `[pair, 2, 512]`, of each alone.

    Returns:
        1 minus the mean cosine, in [0, 2].

    Example:
        >>> one, two = torch.eye(2)
        >>> round(float(additivity((one + two)[None], torch.stack([one, two])[None])), 6)
        0.0
    """
    return 1 - functional.cosine_similarity(together, parts.sum(1), dim=-1).mean()
