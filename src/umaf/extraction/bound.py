"""The bound extractor: for each label of a capability, where in the universal space its texts lie.

The model's own answers to the probes are regressed on the places of the probes. What comes out is one direction per
label, and a constant: a text gets a label in proportion to how far it lies along it. These directions, bound to the
label words, are the fingerprint (`umaf.extraction.binding`). Two models that answer alike have the same one, whatever
they are made of.
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

STRENGTH = 0.3


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
        return f"bound-{hashlib.sha256(f'2 {STRENGTH} {self.space.version}'.encode()).hexdigest()[:12]}"

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
) -> Float[Tensor, "label place+1"]:
    """Find the direction of each label: the ridge regression of the answers on the places.

    Args:
        places: where the probes lie.
        scores: log-probabilities of the labels; without labels the one direction is the mean place.
        strength: of the ridge, per mean squared place.

    Returns:
        One row per label, of length 1 on average and adding up to 0, the constant last; float64.

    Example:
        >>> at = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        >>> found = prototypes(at, torch.tensor([[0.0, -9.0], [-9.0, 0.0]]))
        >>> found.round(decimals=2).abs().tolist(), along(found, at).argmax(1).tolist()
        ([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]], [0, 1])
    """
    x = places.double()
    middle = x.mean(0)
    if scores.shape[1] == 0:
        alone = torch.cat([middle, middle.new_zeros(1)])
        return (alone / alone.norm().clamp_min(1e-12))[None]
    share = scores.double().softmax(-1)
    x = x - middle
    gram = x.T @ x
    ridge = strength * gram.diagonal().mean().clamp_min(1e-12) * torch.eye(len(gram), dtype=gram.dtype)
    found = torch.linalg.solve(gram + ridge, x.T @ (share - share.mean(0))).T
    found = torch.cat([found, (share.mean(0) - found @ middle)[:, None]], dim=1)
    found = found - found.mean(0)
    return found / found.norm(dim=1).mean().clamp_min(1e-12)


def along(
    directions: Float[Tensor, "label place+1"], places: Float[Tensor, "text place"]
) -> Float[Tensor, "text label"]:
    """Say how far texts lie along the directions of labels; float64, greatest where a label fits best."""
    known = directions.double()
    return places.double() @ known[:, :-1].T + known[:, -1]


def load_bound(folder: str | Path | None = None) -> Bound:
    """Open a bound extractor: a folder with a universal space, its file, or the one that ships with umaf.

    Raises:
        FingerprintError: no space there.
    """
    return Bound(load_universal(folder))
