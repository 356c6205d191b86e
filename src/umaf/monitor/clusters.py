"""Whether fingerprints gather by what models can do, or by how they are built."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import silhouette_samples

from umaf.errors import FingerprintError
from umaf.evaluation.statistics import Bootstrap, Interval, mean_interval
from umaf.monitor.alarms import collapsed, spread


@dataclass(frozen=True)
class Silhouettes:
    """How well fingerprints gather, on [-1, 1]; above 0 a model is nearer to its own group than to any other.

    Attributes:
        capability: by capability, with an interval over capabilities; None where there are too few to say.
        architecture: by architecture, with an interval over architectures; None where there are too few.
        spread: variance as a share of the mean squared length.
        alarm: a sentence where all fingerprints are the same; None where they are not.
    """

    capability: Interval | None
    architecture: Interval | None
    spread: float
    alarm: str | None


def capability_of(name: str) -> str:
    """Guess what a model can do from its file's name: all before the first dash or dot.

    Example:
        >>> capability_of("sentiment-bert-3"), capability_of("tense")
        ('sentiment', 'tense')
    """
    return name.replace(".", "-").split("-")[0] or name


def silhouettes(
    vectors: ArrayLike,
    capabilities: Sequence[str],
    architectures: Sequence[str],
    *,
    bootstrap: Bootstrap | None = None,
) -> Silhouettes:
    """Compare how fingerprints gather by capability with how they gather by architecture, in cosine distance.

    Only groups of two or more models count: a single model is near to nothing of its own. Source: Rousseeuw, Journal of
    Computational and Applied Mathematics 20 (1987).

    Args:
        vectors: fingerprints, `[model, number]`.
        capabilities: one per model.
        architectures: one per model.
        bootstrap: how intervals are drawn.

    Raises:
        FingerprintError: lists of different lengths, or fewer than three fingerprints.

    Example:
        >>> table = [[1, 0.1], [1, 0], [0, 1], [0.1, 1]]
        >>> found = silhouettes(table, ["a", "a", "b", "b"], ["x", "y", "x", "y"])
        >>> round(found.capability.value, 2), round(found.architecture.value, 2)
        (0.99, -0.5)
    """
    table = np.asarray(vectors, dtype=np.float64)
    if table.ndim != 2 or len(table) < 3 or not len(table) == len(capabilities) == len(architectures):
        raise FingerprintError(
            f"A silhouette needs three or more fingerprints with a capability and an architecture each, got shape "
            f"{table.shape} with {len(capabilities)} and {len(architectures)} names; pass one row per model."
        )
    found = [_by(table, names, bootstrap or Bootstrap()) for names in (capabilities, architectures)]
    return Silhouettes(found[0], found[1], spread(table), collapsed(table, capabilities))


def _by(table: np.ndarray, names: Sequence[str], bootstrap: Bootstrap) -> Interval | None:
    counts = Counter(names)
    kept = [place for place, name in enumerate(names) if counts[name] > 1]
    chosen = [names[place] for place in kept]
    # scikit-learn needs two groups or more, and fewer groups than models.
    if not 2 <= len(set(chosen)) < len(chosen) or not np.any(table[kept]):
        return None
    each = silhouette_samples(table[kept], chosen, metric="cosine")
    return mean_interval(np.asarray(each), groups=chosen, bootstrap=bootstrap)
