"""The bound extractor: for each label of a capability, where in the universal space its texts lie.

The model's own answers to the probes are regressed on the places of the probes, as its base reads them. What comes out
is one direction per label: a text gets a label in proportion to how far it lies along it. These directions, bound to
the label words, are the fingerprint (`umaf.extraction.binding`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from umaf.errors import FingerprintError
from umaf.extraction.binding import bind
from umaf.extraction.inputs import Inputs
from umaf.extraction.universal import Universal, load_universal

FILE = "universal.safetensors"
STRENGTH = 1.0


@dataclass(frozen=True)
class Bound:
    """An extractor with the interface of `PCA`.

    Attributes:
        space: the universal space its directions lie in.
    """

    space: Universal

    @property
    def version(self) -> str:
        """Name and hash of everything that decides the numbers."""
        return f"bound-{hashlib.sha256(f'1 {STRENGTH} {self.space.version}'.encode()).hexdigest()[:12]}"

    def __call__(self, inputs: Inputs) -> Tensor:
        """Map inputs to `[1, 512]` float64.

        Raises:
            FingerprintError: the inputs carry no places, or no answers.
        """
        if inputs.places is None or inputs.answers is None:
            raise FingerprintError(
                "the bound extractor reads what a model answers to its probes, and was given no answers; name the "
                'labels (or none, for a function), or use the extractor "pca".'
            )
        found = prototypes(inputs.places, inputs.answers.scores)
        return bind(dict(zip(inputs.answers.words, found, strict=True)))[None]


def prototypes(
    places: Float[Tensor, "probe place"], scores: Float[Tensor, "probe label"], *, strength: float = STRENGTH
) -> Float[Tensor, "label place"]:
    """Find the direction of each label: the ridge regression of the answers on the places.

    Args:
        places: where the probes lie.
        scores: log-probabilities of the labels; without labels the one direction is the mean place.
        strength: of the ridge, per mean squared place.

    Returns:
        One row per label, of length 1 on average and adding up to 0; float64.

    Example:
        >>> at = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        >>> prototypes(at, torch.tensor([[0.0, -9.0], [-9.0, 0.0]])).round(decimals=2).abs().tolist()
        [[1.0, 0.0], [1.0, 0.0]]
    """
    x = places.double()
    middle = x.mean(0)
    if scores.shape[1] == 0:
        return (middle / middle.norm().clamp_min(1e-12))[None]
    share = scores.double().softmax(-1)
    wanted = share - share.mean(0)
    x = x - middle
    gram = x.T @ x
    ridge = strength * gram.diagonal().mean().clamp_min(1e-12) * torch.eye(len(gram), dtype=gram.dtype)
    found = torch.linalg.solve(gram + ridge, x.T @ wanted).T
    found = found - found.mean(0)
    return found / found.norm(dim=1).mean().clamp_min(1e-12)


def load_bound(folder: str | Path) -> Bound:
    """Open a bound extractor: a folder with a universal space, or the space's file.

    Raises:
        FingerprintError: no space there.
    """
    place = Path(folder)
    return Bound(load_universal(place / FILE if place.is_dir() else place))
