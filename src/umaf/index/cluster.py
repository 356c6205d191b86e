"""Clusters of fingerprints without choosing how many: partitions of growing k, each checked by a Gaussian mixture.

For k = 1, 2, … the data are split by k-means from a start that depends on the data alone: repeatedly the widest group
is cut along its first principal direction. A Gaussian mixture is then fitted from that partition. A partition is
accepted where the mixture assigns almost every point as k-means did (adjusted Rand index) and where the mixture
explains the data better than any accepted one before (Bayesian information criterion). The last accepted partition
counts. Nothing is drawn at random, and the order of the rows is taken out first, so the same fingerprints give the same
clusters whatever the start.

Source: after Probabilistic Partitive Partitioning (arXiv 2003.04372), of which only the idea is used; parts by
scikit-learn.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from umaf.errors import StoreError

MOST = 32
# Directions kept before clustering; distances in hundreds of directions hardly differ.
DIRECTIONS = 16
AGREED = 0.9
# Tries of a larger k that bring nothing before the search ends.
PATIENCE = 4


@dataclass(frozen=True)
class Clusters:
    """A partition.

    Attributes:
        labels: cluster of each row, from 0, the largest cluster first.
        count: number of clusters.
        silhouette: mean silhouette by cosine, in [-1, 1]; None for a single cluster.
        tried: per k, the agreement of k-means and mixture, the criterion (lower is better), and whether it was
            accepted.
    """

    labels: tuple[int, ...]
    count: int
    silhouette: float | None
    tried: tuple[dict[str, float], ...]


def clusters(vectors: Float[Tensor, "row number"], *, most: int = MOST) -> Clusters:
    """Find groups of vectors and how many there are.

    Args:
        vectors: at least 3; brought to length 1 first.
        most: the largest number of clusters that is tried.

    Returns:
        The partition, the same whatever the order of the rows.

    Raises:
        StoreError: fewer than 3 vectors.

    Example:
        >>> import torch
        >>> near = 0.01 * torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
        >>> clusters(torch.eye(8)[torch.arange(40) % 2] + near).count
        2
    """
    if len(vectors) < 3:
        raise StoreError(
            f"Clusters need at least 3 fingerprints, and there are {len(vectors)}; add models, or widen the condition."
        )
    rows = vectors.double().numpy()
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    order = np.lexsort(rows.T[::-1])
    points = _reduced(rows[order])
    best, tried = _search(points, min(most, len(points) - 1))
    labels = np.empty(len(points), dtype=int)
    labels[order] = best
    return _result(rows, labels, tried)


def _search(points: np.ndarray, most: int) -> tuple[np.ndarray, list[dict[str, float]]]:
    from sklearn.metrics import adjusted_rand_score

    best, lowest, idle, tried = np.zeros(len(points), dtype=int), np.inf, 0, []
    for count in range(1, most + 1):
        found = _means(points, count)
        agreed, criterion = 1.0, np.inf
        if len(np.unique(found)) == count:
            mixed, criterion = _mixture(points, found, count)
            agreed = adjusted_rand_score(found, mixed)
        accepted = bool(agreed >= AGREED and criterion < lowest)
        tried.append(
            {"k": count, "agreed": float(agreed), "criterion": float(criterion), "accepted": float(accepted)}
        )
        if accepted:
            best, lowest, idle = found, criterion, 0
        else:
            idle += 1
        if idle == PATIENCE:
            break
    return best, tried


def _reduced(rows: np.ndarray) -> np.ndarray:
    """Project on the first principal directions, at most a quarter as many as rows."""
    centred = rows - rows.mean(0)
    _, values, directions = np.linalg.svd(centred, full_matrices=False)
    kept = max(1, min(DIRECTIONS, len(rows) // 4, int((values > 1e-6 * max(values[0], 1e-300)).sum())))
    largest = np.abs(directions).argmax(1)
    signs = np.sign(directions[np.arange(len(directions)), largest])
    return centred @ (directions[:kept] * signs[:kept, None]).T


def _means(points: np.ndarray, count: int) -> np.ndarray:
    """Partition by k-means from the start that cutting along principal directions gives."""
    from sklearn.cluster import KMeans

    if count == 1:
        return np.zeros(len(points), dtype=int)
    groups = [np.arange(len(points))]
    while len(groups) < count:
        widths = [float(((points[g] - points[g].mean(0)) ** 2).sum()) if len(g) > 1 else -1.0 for g in groups]
        group = groups.pop(int(np.argmax(widths)))
        if len(group) < 2:
            return np.zeros(len(points), dtype=int)
        centred = points[group] - points[group].mean(0)
        along = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
        upper = along > np.median(along) if len(group) > 2 else along >= along.max()
        if upper.all() or not upper.any():
            upper = np.arange(len(group)) >= len(group) // 2
        groups += [group[~upper], group[upper]]
    centres = np.stack([points[group].mean(0) for group in groups])
    kind: Any = KMeans
    return np.asarray(kind(count, init=centres, n_init=1, max_iter=300, tol=0).fit(points).labels_)


def _mixture(points: np.ndarray, labels: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """Fit a mixture whose clusters share one shape, from a partition; give its assignment and its criterion."""
    from sklearn.mixture import GaussianMixture

    means = np.stack([points[labels == one].mean(0) for one in range(count)])
    weights = np.bincount(labels, minlength=count) / len(labels)
    apart = points - means[labels]
    # One shape for all clusters: with a width of its own, a cluster of two points would explain anything.
    floor = 1e-3 * float(points.var(0).mean()) + 1e-12
    within = apart.T @ apart / len(points) + floor * np.eye(points.shape[1])
    model = GaussianMixture(
        count,
        covariance_type="tied",
        means_init=means,
        weights_init=weights,
        precisions_init=np.linalg.inv(within),
        reg_covar=floor,
        max_iter=200,
        random_state=0,
    )
    with warnings.catch_warnings():
        # A mixture that does not settle disagrees with the partition, which is what decides.
        warnings.simplefilter("ignore")
        model.fit(points)
    return model.predict(points), float(model.bic(points))


def _result(rows: np.ndarray, labels: np.ndarray, tried: list[dict[str, float]]) -> Clusters:
    from sklearn.metrics import silhouette_score

    # The largest first; of equals, the one whose first member comes first when members are sorted by value.
    names, sizes = np.unique(labels, return_counts=True)
    firsts = [tuple(rows[labels == name].min(0)) for name in names]
    order = sorted(range(len(names)), key=lambda at: (-sizes[at], firsts[at]))
    new = {int(names[at]): rank for rank, at in enumerate(order)}
    final = np.array([new[int(label)] for label in labels])
    score = None
    if 1 < len(names) < len(rows):
        score = float(silhouette_score(rows, final, metric="cosine"))
    return Clusters(tuple(int(one) for one in final), len(names), score, tuple(tried))
