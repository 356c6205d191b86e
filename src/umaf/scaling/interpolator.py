"""Stage 2 in one call: a fingerprint as a model of another size would show it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

from torch import Tensor

from umaf.extraction import Fingerprint, FingerprintCard
from umaf.models import Model
from umaf.registry import Registry
from umaf.scaling.size import Size, size_of

Scaling = Callable[[Fingerprint, Size, Path | None], Tensor]

SCALINGS = Registry(
    "scaling",
    "umaf.scalings",
    {
        "identity": "umaf.scaling.identity:identity",
        "ridge": "umaf.scaling.ridge:ridge",
        "film": "umaf.scaling.film:film",
    },
)


def scale(
    fingerprint: Fingerprint, to: Model | FingerprintCard | Fingerprint, *, method: str = "identity"
) -> Fingerprint:
    """Scale a fingerprint to the size of a target.

    Args:
        fingerprint: what to scale.
        to: the target, or a card or fingerprint of a model of its size.
        method: a registered name, with a file after a colon where it needs one: "identity",
            "film" (the network that ships), "film:FILE", "ridge:FILE".

    Returns:
        A fingerprint whose card names the size it was scaled to.

    Raises:
        RegistryError: no such method.
        ConfigError: a file that is missing or not wanted.
        FingerprintError: a fitted map for other sizes or another extractor.
    """
    name, _, file = method.partition(":")
    compute = cast(Scaling, SCALINGS.get(name))
    size = size_of(to)
    vector = compute(fingerprint, size, Path(file) if file else None)
    return fingerprint.with_vector(vector, scaled_to=str(size))
