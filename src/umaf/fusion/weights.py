"""What weights mean, and weights from similarity.

Weights are shares: only their proportions matter, and they are divided by the sum of their absolute
values. A weight of 0 leaves a source out. A negative weight asks for the opposite of what the source
learned. All zero is an error, because nothing would be asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from umaf.errors import ConfigError, FingerprintError
from umaf.extraction import DISTANCES, Fingerprint, similarity


def check_weights(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """Check weights and bring them to a sum of absolute values of 1.

    Args:
        weights: one per source; None for equal ones.
        count: number of sources.

    Returns:
        The weights as used.

    Raises:
        FingerprintError: no sources, a wrong count, NaN or infinity, or nothing but zeros.

    Example:
        >>> check_weights([3, -1], 2)
        (0.75, -0.25)
    """
    if count < 1:
        raise FingerprintError("a fusion needs fingerprints, got none; give at least one.")
    given = [1.0] * count if weights is None else [float(weight) for weight in weights]
    if len(given) != count:
        raise FingerprintError(
            f"{count} fingerprints were given with {len(given)} weights; give one weight to each."
        )
    if not all(map(math.isfinite, given)):
        raise FingerprintError(f"weights must be finite numbers, got {given}; replace NaN and infinity.")
    largest = max(map(abs, given))
    if largest == 0:
        raise FingerprintError(
            "all weights are 0, so nothing would be fused; make at least one of them another number."
        )
    # By the largest first: the sum of huge weights would be infinite, that of tiny ones lose its digits.
    shares = [weight / largest for weight in given]
    total = sum(map(abs, shares))
    return tuple(weight / total for weight in shares)


def weights_from_similarity(
    fingerprints: Sequence[Fingerprint],
    wanted: Fingerprint,
    *,
    temperature: float = 0.1,
    metric: str = "cosine",
) -> list[float]:
    """Weigh sources by how alike they are to what is wanted.

    Args:
        fingerprints: the sources.
        wanted: a fingerprint on the wanted task's probes, from the same extractor.
        temperature: of the softmax, above 0; small ones choose the nearest source, large ones weigh
            all alike.
        metric: a registered similarity; a divergence counts with a minus sign.

    Returns:
        One weight per source, all at least 0, summing to 1.

    Raises:
        FingerprintError: no fingerprints, or some that do not lie in one space.
        ConfigError: a temperature of 0 or less.
    """
    if not fingerprints:
        raise FingerprintError("weights from similarity need fingerprints, got none; give at least one.")
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ConfigError(
            f"the temperature must be a number above 0, got {temperature}; 0.1 is a good start."
        )
    sign = -1.0 if metric in DISTANCES else 1.0
    values = [sign * similarity(fingerprint, wanted, metric) for fingerprint in fingerprints]
    return (torch.tensor(values, dtype=torch.float64) / temperature).softmax(0).tolist()
