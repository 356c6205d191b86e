"""A few labelled shots refine the weights of a fusion, by the cross-entropy method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from umaf.extraction import Fingerprint
from umaf.fusion import check_weights, fuse
from umaf.search.cem import CrossEntropy, Numbers, cross_entropy

Score = Callable[[Fingerprint], tuple[float, ...]]
FEW = CrossEntropy(population=16, elites=4, iterations=10, patience=4, spread=0.25)


@dataclass(frozen=True)
class Refined:
    """What the shots made of the weights.

    Attributes:
        fused: the fingerprint with the best weights.
        weights: these, absolute values summing to 1.
        before: score of the weights that it began with.
        after: score of the best.
    """

    fused: Fingerprint
    weights: tuple[float, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]


def refine_weights(
    fingerprints: Sequence[Fingerprint],
    weights: Sequence[float] | None,
    score: Score,
    *,
    method: str = "weighted",
    settings: CrossEntropy | None = None,
) -> Refined:
    """Search for better weights around those given; worse ones never come back.

    Args:
        fingerprints: the sources, scaled to the target.
        weights: to begin with; None for equal ones.
        score: scores a fused fingerprint on a few shots, such as the accuracy and then the likelihood of the right
            answers of the target with the adapter generated from it; the greater tuple is better.
        method: of the fusion.
        settings: of the search; weights stay in [0, 1] unless its range says otherwise.

    Returns:
        The best weights found.

    Raises:
        FingerprintError: fingerprints that do not lie in one space, or a wrong count of weights.

    Example:
        >>> from umaf.testing import made_fingerprint
        >>> one, two = made_fingerprint(1), made_fingerprint(2)
        >>> near = lambda fused: (float(fused.vector @ one.vector.T),)
        >>> refine_weights([one, two], None, near, settings=CrossEntropy(iterations=3)).weights[0] > 0.8
        True
    """
    start = check_weights(weights, len(fingerprints))
    chosen = settings or FEW
    if min(start) < chosen.low:
        chosen = replace(chosen, low=-chosen.high)

    def scored(candidates: Numbers) -> list[tuple[float, ...]]:
        return [score(_fused(fingerprints, row.tolist(), method)) for row in candidates]

    before = score(_fused(fingerprints, start, method))
    found = cross_entropy(scored, start, settings=chosen)
    best = check_weights(_usable(found.numbers.tolist()), len(fingerprints))
    if found.score <= before:
        best, after = start, before
    else:
        after = found.score
    return Refined(_fused(fingerprints, best, method), best, before, after)


def _fused(fingerprints: Sequence[Fingerprint], weights: Sequence[float], method: str) -> Fingerprint:
    return fuse(fingerprints, _usable(weights), method=method)


def _usable(weights: Sequence[float]) -> list[float]:
    """Weights that are all 0 ask for nothing; equal ones stand in for them."""
    return list(weights) if any(weights) else [1.0] * len(weights)
