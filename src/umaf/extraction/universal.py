"""The universal space: a place for any text, which every model can read from its own activations.

A few thousand calibration texts have fixed coordinates, made once from one or more reference models. Another model is
taught to read them by one linear system: from its activations on those texts to their coordinates. Anchors alone are
too few for that: with 256 texts the maps of two small models agree about unseen classes hardly at all, with four
thousand they do (`docs/concepts/universal-space.md`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from umaf.activations import DEPTHS, capture
from umaf.errors import FingerprintError, ProbeError
from umaf.extraction.store import read_tensors, write_tensors
from umaf.files import hash_texts
from umaf.models import Model
from umaf.tensors.whiten import whitener

WIDTH = 64
STRENGTH = 1e-2
LEAST = 16


@dataclass(frozen=True)
class Universal:
    """The space: calibration texts with their coordinates.

    Attributes:
        texts: the calibration texts.
        coordinates: `[text, place]` float32, mean 0 and about equally spread in every direction.
    """

    texts: tuple[str, ...]
    coordinates: Tensor

    @property
    def width(self) -> int:
        """Numbers per text."""
        return int(self.coordinates.shape[1])

    @property
    def version(self) -> str:
        """Name and hash of texts and coordinates."""
        digest = hashlib.sha256(hash_texts(self.texts).encode())
        digest.update(self.coordinates.contiguous().numpy().tobytes())
        return f"universal-{digest.hexdigest()[:12]}"

    def save(self, path: str | Path) -> Path:
        """Write one file that does not exist; read it with `load_universal`."""
        about = {"umaf": "universal", "texts": json.dumps(self.texts)}
        return write_tensors(path, {"coordinates": self.coordinates}, about)


@dataclass(frozen=True)
class Reader:
    """A model's map into the universal space.

    Attributes:
        means: `[depth, hidden]`, of the calibration texts.
        change: `[depth * hidden, place]`.
        spread: `[place, place]`, gives what was read the same spread in every direction.
        depths: the depths it reads.
    """

    means: Tensor
    change: Tensor
    spread: Tensor
    depths: tuple[float, ...]

    def __call__(self, activations: Tensor) -> Tensor:
        """Map activations `[depth, text, hidden]` of its model to places `[text, place]` float32."""
        return (_features(activations, self.means) @ self.change @ self.spread).float()


def fit_universal(references: Sequence[Model], texts: Sequence[str], *, width: int = WIDTH) -> Universal:
    """Make the space from what reference models make of calibration texts.

    Each model's activations, centred and of length 1 at the last depth, stand side by side with equal weight; their
    first principal coordinates, whitened, are the space.

    Args:
        references: at least one model; sentence encoders arrange texts best.
        texts: calibration texts, more than `width`.
        width: numbers per text.

    Returns:
        The space.

    Raises:
        ProbeError: too few texts.
        FingerprintError: no model.
    """
    if not references:
        raise FingerprintError(
            "a universal space is made from reference models, got none; give at least one."
        )
    if len(texts) <= width:
        raise ProbeError(
            f"a space of {width} numbers needs more calibration texts than that, got {len(texts)}; give more."
        )
    seen = [capture(model, texts, depths=(1.0,), truncate=True) for model in references]
    rows = torch.cat([_features(each, each.double().mean(1)) for each in seen], dim=1)
    rows = rows - rows.mean(0)
    _, values, directions = torch.linalg.svd(rows, full_matrices=False)
    kept = directions[: min(width, int((values > 1e-6 * values[0]).sum()))]
    # A sign per direction, or the file would depend on the LAPACK in use.
    kept = kept * kept.gather(1, kept.abs().argmax(1, keepdim=True)).sign()
    places = _white(rows @ kept.T)
    return Universal(tuple(texts), places.float())


def load_universal(path: str | Path) -> Universal:
    """Read a space that `Universal.save` wrote.

    Raises:
        FingerprintError: no such file, or not a universal space.
    """
    tensors, about = read_tensors(path)
    coordinates = tensors.get("coordinates")
    if about.get("umaf") != "universal" or coordinates is None or coordinates.dim() != 2:
        raise FingerprintError(f"{path} is not a universal space of umaf; make one with fit_universal.")
    texts = tuple(json.loads(about["texts"]))
    if len(texts) != len(coordinates):
        raise FingerprintError(
            f"{path} holds {len(texts)} texts with {len(coordinates)} places; copy it again."
        )
    return Universal(texts, coordinates.float())


def fit_reader(
    model: Model, space: Universal, *, depths: Sequence[float] = DEPTHS, strength: float = STRENGTH
) -> Reader:
    """Teach a model to read the space, by ridge regression on the calibration texts.

    Args:
        model: any opened model.
        space: the space.
        depths: layers to read as shares of the stack.
        strength: of the ridge, per mean squared feature.

    Returns:
        The reader, good for this model's activations at these depths.
    """
    activations = capture(model, space.texts, depths=depths, truncate=True)
    means = activations.double().mean(1)
    rows = _features(activations, means)
    target = space.coordinates.double()
    gram = rows.T @ rows
    ridge = strength * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    change = torch.linalg.solve(gram + ridge, rows.T @ target)
    return Reader(means, change, _spread(rows @ change), tuple(depths))


def places(model: Model, texts: Sequence[str], reader: Reader, *, truncate: bool = False) -> Tensor:
    """Read texts with a model: `[text, place]` float32."""
    return reader(capture(model, texts, depths=reader.depths, truncate=truncate))


def _features(activations: Tensor, means: Tensor) -> Tensor:
    """Centre each depth, bring every vector to length 1, and put the depths side by side, float64."""
    centred = activations.double() - means[:, None]
    lengths = centred.norm(dim=-1, keepdim=True)
    return (centred / lengths.clamp_min(1e-12)).transpose(0, 1).flatten(1)


def _white(rows: Tensor) -> Tensor:
    return whitener(rows)(rows)


def _spread(rows: Tensor) -> Tensor:
    """Give the symmetric matrix that whitens rows of mean 0, weak directions held back by a tenth of the mean."""
    values, directions = torch.linalg.eigh(rows.T @ rows / len(rows))
    scaled = (values.clamp_min(0) + 0.1 * values.mean().clamp_min(1e-300)).rsqrt()
    return (directions * scaled) @ directions.T
