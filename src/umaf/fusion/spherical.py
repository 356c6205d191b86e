"""The weighted mean of fingerprints on the sphere."""

from __future__ import annotations

import torch
from torch import Tensor

from umaf.errors import FingerprintError

STEPS = 100
CLOSE = 1e-12


def spherical(vectors: Tensor, weights: Tensor) -> Tensor:
    """Average directions on the sphere, and lengths apart from them.

    The direction minimises the weighted sum of squared angles to the sources' directions (the Karcher
    mean), found by averaging in the tangent plane until nothing moves. A negative weight counts as
    the same weight on the opposite point. A vector of length 0 has no direction and only shortens the
    result, whose length is the weighted average of the lengths. A source exactly opposite to the mean
    pulls in every direction alike, so it does not move it.

    Args:
        vectors: `[source, 512]` float64.
        weights: `[source]` float64, absolute values summing to 1.

    Returns:
        `[512]`; 0 where every weighted vector is 0.

    Raises:
        FingerprintError: directions that cancel, so that every point of a circle would do as well.

    Source: Buss and Fillmore, Spherical averages, ACM TOG 2001, algorithm A1.

    Example:
        >>> import torch
        >>> [round(x, 4) for x in spherical(torch.eye(2), torch.tensor([0.5, 0.5])).tolist()]
        [0.7071, 0.7071]
    """
    lengths = vectors.norm(dim=1)
    shares = weights.abs()
    length = shares @ lengths
    used = (lengths > 0) & (shares > 0)
    if not used.any():
        return torch.zeros_like(vectors[0])
    points = (vectors * weights.sign()[:, None])[used] / lengths[used][:, None]
    shares = shares[used] / shares[used].sum()
    mean = shares @ points
    if mean.norm() < 1e-6:
        raise FingerprintError(
            "the fingerprints point in opposite directions and cancel, so they have no mean on the sphere; change the "
            'weights, or use the fusion "weighted".'
        )
    mean = mean / mean.norm()
    for _ in range(STEPS):
        step = shares @ _tangents(mean, points)
        angle = step.norm()
        if angle < CLOSE:
            break
        mean = angle.cos() * mean + angle.sin() * step / angle
        mean = mean / mean.norm()
    return length * mean


def _tangents(mean: Tensor, points: Tensor) -> Tensor:
    """Return the tangent at `mean` that leads to each point `[source, 512]`, as long as the angle."""
    along = points @ mean
    across = points - along[:, None] * mean
    distance = across.norm(dim=1)
    # atan2 keeps digits where arccos loses them, at angles near 0 and pi.
    angle = torch.atan2(distance, along)
    factor = torch.where(distance > CLOSE, angle / distance.clamp_min(CLOSE), torch.zeros_like(angle))
    return factor[:, None] * across
