"""Stage 3 in one call: several capabilities as one fingerprint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor

from umaf.extraction import Fingerprint, comparable
from umaf.fusion.weights import check_weights
from umaf.registry import Registry

Fusion = Callable[[Tensor, Tensor], Tensor]

FUSIONS = Registry(
    "fusion",
    "umaf.fusions",
    {"weighted": "umaf.fusion.weighted:weighted", "spherical": "umaf.fusion.spherical:spherical"},
)


def fuse(
    fingerprints: Sequence[Fingerprint], weights: Sequence[float] | None = None, *, method: str = "weighted"
) -> Fingerprint:
    """Fuse fingerprints of one or more sources.

    Args:
        fingerprints: at least one, all from the same extractor, anchors, normalisation and depths;
            their probes may differ.
        weights: one per fingerprint, in proportion; negative ones subtract, None weighs all alike. See
            `umaf.fusion.weights`.
        method: a registered name: "weighted" or "spherical".

    Returns:
        A fingerprint whose card lists the sources and the weights as used. A single source with a
        positive weight comes back with its own numbers.

    Raises:
        FingerprintError: a wrong count of weights, all of them 0, fingerprints that do not lie in one
            space, or directions that cancel on the sphere.
        RegistryError: no such method.
    """
    compute = cast(Fusion, FUSIONS.get(method))
    used = check_weights(weights, len(fingerprints))
    first = fingerprints[0]
    for other in fingerprints[1:]:
        comparable(first, other)
    vectors = torch.cat([fingerprint.vector for fingerprint in fingerprints]).double()
    vector = compute(vectors, torch.tensor(used, dtype=torch.float64))
    names = tuple(fingerprint.card.model for fingerprint in fingerprints)
    same_probes = len({fingerprint.card.probes for fingerprint in fingerprints}) == 1
    return first.with_vector(
        vector,
        model=f"{method}({', '.join(names)})",
        sources=names,
        weights=used,
        probes=first.card.probes if same_probes else "mixed",
        probe_count=max(fingerprint.card.probe_count for fingerprint in fingerprints),
        truncated=sum(fingerprint.card.truncated for fingerprint in fingerprints),
        strength=float(vector.norm()),
        unchanged=all(fingerprint.card.unchanged for fingerprint in fingerprints),
    )
