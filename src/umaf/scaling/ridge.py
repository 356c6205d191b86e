"""A linear map from fingerprints at one size to fingerprints at another, in closed form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from umaf.errors import ConfigError, FingerprintError
from umaf.extraction import Fingerprint, comparable
from umaf.extraction.store import read_tensors, write_tensors
from umaf.scaling.size import Size, size_of
from umaf.tensors import ridge as fit

WIDTH = 512


@dataclass(frozen=True)
class Ridge:
    """A fitted map: `vector + vector @ change`.

    Attributes:
        change: `[512, 512]` float32; what the map adds to the identity.
        source: the size it maps from.
        target: the size it maps to.
        extractor: version of the extractor whose fingerprints it was fitted on.
        pairs: how many pairs it was fitted on.
    """

    change: Tensor
    source: Size
    target: Size
    extractor: str
    pairs: int

    def __call__(self, fingerprint: Fingerprint, to: Size) -> Tensor:
        """Map a fingerprint to `[1, 512]`, keeping its length.

        Raises:
            FingerprintError: another source size, target size or extractor than it was fitted on.
        """
        own = size_of(fingerprint)
        for what, fitted, given in (("from", self.source, own), ("to", self.target, to)):
            if not fitted.same_shape(given):
                raise FingerprintError(
                    f"this ridge scales {what} {fitted}, and was asked to scale {what} {given}; fit one for that size, "
                    f'or use the scaling "identity".'
                )
        if self.extractor != fingerprint.card.extractor:
            raise FingerprintError(
                f"this ridge was fitted on fingerprints of {self.extractor}, got one of {fingerprint.card.extractor}; "
                f"extract with the same extractor, or fit it again."
            )
        vector = fingerprint.vector.double()
        scaled = vector + vector @ self.change.double()
        length = float(scaled.norm())
        return scaled * (float(vector.norm()) / length) if length > 0 else scaled

    def save(self, path: str | Path) -> Path:
        """Write the map to a file that does not exist; read it with `load_ridge`."""
        facts = {"source": asdict(self.source), "target": asdict(self.target), "pairs": self.pairs}
        card = json.dumps({**facts, "extractor": self.extractor})
        return write_tensors(path, {"change": self.change}, {"umaf": "ridge", "card": card})


def fit_ridge(pairs: Sequence[tuple[Fingerprint, Fingerprint]], *, strength: float = 1.0) -> Ridge:
    """Fit the map on pairs of fingerprints of the same capability in a small and a large model.

    The penalty is on the change, not on the map: where few pairs say something, the rest of the
    space stays as it is, and with a growing penalty the map becomes the identity.

    Args:
        pairs: (at the source size, at the target size), one per capability; sizes alike in all.
        strength: the penalty, above 0. Fingerprints have length 1, so that with 1 a direction that a
            single pair shows is moved half the way, and one that three pairs show three quarters.

    Returns:
        The map.

    Raises:
        FingerprintError: no pairs, pairs from different spaces or sizes.
        ConfigError: a strength of 0 or less.

    Source: ridge with a prior mean, Hoerl and Kennard 1970, section 4.
    """
    if not pairs:
        raise FingerprintError(
            "a ridge needs pairs of fingerprints to be fitted on, got none; give at least one."
        )
    if not strength > 0:
        raise ConfigError(f"the strength of a ridge must be above 0, got {strength}; 1 is a good start.")
    source, target = (size_of(side) for side in pairs[0])
    for left, right in pairs:
        comparable(left, right)
        comparable(left, pairs[0][0])
        if not (size_of(left).same_shape(source) and size_of(right).same_shape(target)):
            raise FingerprintError(
                f"a ridge maps one size to one other, got pairs from {source} to {target} and from {size_of(left)} to "
                f"{size_of(right)}; fit one ridge for each."
            )
    x = torch.cat([left.vector for left, _ in pairs]).double()
    y = torch.cat([right.vector for _, right in pairs]).double()
    if not x.any():
        change = torch.zeros(WIDTH, WIDTH)
    else:
        # `fit` takes its strength per mean squared column of x; here it is a plain number.
        change = fit(x, y - x, strength=strength * WIDTH / float((x**2).sum())).float()
    return Ridge(change, source, target, pairs[0][0].card.extractor, len(pairs))


def load_ridge(path: str | Path) -> Ridge:
    """Read a map that `Ridge.save` wrote.

    Raises:
        FingerprintError: no such file, or not a ridge.
    """
    tensors, about = read_tensors(path)
    change = tensors.get("change")
    if about.get("umaf") != "ridge" or change is None or tuple(change.shape) != (WIDTH, WIDTH):
        raise FingerprintError(f"{path} is not a ridge of umaf; fit one with fit_ridge and save it.")
    card = json.loads(about["card"])
    return Ridge(change, Size(**card["source"]), Size(**card["target"]), card["extractor"], card["pairs"])


def ridge(fingerprint: Fingerprint, to: Size, file: Path | None) -> Tensor:
    """Scale by the ridge in a file; the vector `[1, 512]`.

    Raises:
        ConfigError: no file was named.
        FingerprintError: not a ridge, or one for other sizes.
    """
    if file is None:
        raise ConfigError('the scaling "ridge" needs the file of a fitted map; write "ridge:FILE".')
    return load_ridge(file)(fingerprint, to)
