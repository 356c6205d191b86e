"""How alike two fingerprints are, by any registered metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor

from umaf.errors import FingerprintError
from umaf.extraction.fingerprint import Fingerprint, comparable, coordinates_of
from umaf.registry import Registry
from umaf.tensors import cka as linear_cka

Similarity = Callable[[Fingerprint, Fingerprint], float]

SIMILARITIES = Registry(
    "similarity",
    "umaf.similarities",
    {name: f"umaf.extraction.similarity:{name}" for name in ("cosine", "kl", "pearson", "spearman", "cka")},
)

# Metrics where 0 means equal and more means further apart.
DISTANCES = frozenset({"kl"})


def similarity(left: Fingerprint, right: Fingerprint, metric: str = "cosine") -> float:
    """Compare two fingerprints.

    Args:
        left: a fingerprint.
        right: another, from the same extractor, anchors, normalisation and depths.
        metric: "cosine", "pearson", "spearman" and "cka" are 1 for equal ones and near 0 for unrelated
            ones; "kl" is a divergence, 0 for equal ones and larger the further apart.

    Returns:
        The value of the metric.

    Raises:
        FingerprintError: fingerprints that do not lie in one space; the message says why.
        RegistryError: no such metric.
    """
    compare = cast(Similarity, SIMILARITIES.get(metric))
    comparable(left, right)
    return float(compare(left, right))


def similarities(fingerprints: Sequence[Fingerprint], metric: str = "cosine") -> Tensor:
    """Compare each fingerprint with each.

    Args:
        fingerprints: at least one.
        metric: as in `similarity`; every built-in one is symmetric.

    Returns:
        `[fingerprint, fingerprint]` float64; the entry i, j compares i with j.

    Raises:
        FingerprintError: none given, or two that do not lie in one space.
        RegistryError: no such metric.
    """
    if not fingerprints:
        raise FingerprintError("a table of similarities needs fingerprints, got none; give at least one.")
    rows = [[similarity(left, right, metric) for right in fingerprints] for left in fingerprints]
    return torch.tensor(rows, dtype=torch.float64)


def cosine(left: Fingerprint, right: Fingerprint) -> float:
    """Return the cosine of the angle, in [-1, 1]; 0 where one of them is no change."""
    return _cosine(_numbers(left), _numbers(right))


def pearson(left: Fingerprint, right: Fingerprint) -> float:
    """Return the correlation of the 512 numbers, in [-1, 1]; 0 where one side does not vary."""
    x, y = _numbers(left), _numbers(right)
    return _cosine(x - x.mean(), y - y.mean())


def spearman(left: Fingerprint, right: Fingerprint) -> float:
    """Return the correlation of the ranks of the 512 numbers, in [-1, 1]; equal numbers share a rank."""
    x, y = _ranks(_numbers(left)), _ranks(_numbers(right))
    return _cosine(x - x.mean(), y - y.mean())


def kl(left: Fingerprint, right: Fingerprint, *, symmetric: bool = True) -> float:
    """Return the Kullback-Leibler divergence of the fingerprints as distributions, at least 0.

    The 512 numbers of a vector of length 1 are all small, and a softmax of them is nearly even; they
    are multiplied by sqrt(512) first, so that their root mean square is 1.

    Args:
        left: a fingerprint.
        right: another.
        symmetric: take the mean of both directions; otherwise KL(left | right).
    """
    scale = left.vector.numel() ** 0.5
    log_p, log_q = ((scale * _numbers(side)).log_softmax(0) for side in (left, right))
    forward = float((log_p.exp() * (log_p - log_q)).sum())
    if not symmetric:
        return max(forward, 0.0)
    return max((forward + float((log_q.exp() * (log_q - log_p)).sum())) / 2, 0.0)


def cka(left: Fingerprint, right: Fingerprint) -> float:
    """Return the unbiased linear CKA of the coordinates of the same probes in both models, at most 1.

    One row of 512 numbers has no alignment to speak of; CKA compares what the fingerprints were made
    from: per probe, its shifts towards all anchors at all depths.

    Raises:
        FingerprintError: other probes, or a fingerprint without coordinates.
    """
    comparable(left, right, probes=True)
    x, y = (coordinates_of(side).transpose(0, 1).flatten(1) for side in (left, right))
    return linear_cka(x, y, unbiased=True)


def _numbers(fingerprint: Fingerprint) -> Tensor:
    return fingerprint.vector.double().flatten()


def _cosine(x: Tensor, y: Tensor) -> float:
    scale = float(x.norm()) * float(y.norm())
    return max(-1.0, min(1.0, float(x @ y) / scale)) if scale > 0 else 0.0


def _ranks(x: Tensor) -> Tensor:
    """Rank numbers from 0; equal ones get the mean of the ranks they cover."""
    _, group, counts = x.unique(sorted=True, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts.double() + 1) / 2)[group]
