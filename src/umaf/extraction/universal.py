"""The universal space: a place for any text, read by one small model at both ends of a transfer.

What a source answers is told as a function of these places, and the target looks up the places of the same texts. So
nothing is lost between two models that see texts differently, and nothing of the source's own geometry (its
architecture, size, rotation) gets into what is told. Maps from each model's own activations were tried before, and lost
a quarter of the labels on the way (`docs/concepts/universal-space.md`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from umaf.activations import DEPTHS, capture
from umaf.errors import FingerprintError, ProbeError
from umaf.extraction.store import read_tensors, write_tensors
from umaf.models import Model, open_model, weights_hash

FILE = "universal.safetensors"
READER = "zoo:llama-1m"
WIDTH = 63
"""With its constant, a label has 64 numbers; eight labels fill a fingerprint."""
SHIPPED = (
    Path(__file__).resolve().parents[3] / "zoo" / "space",  # a checkout
    Path(__file__).resolve().parents[1] / "zoo_space",  # an installed wheel
)


@dataclass(frozen=True)
class Universal:
    """The space.

    Attributes:
        reader: the model that reads texts, as `umaf.models.open_model` takes it.
        weights: hash of the reader's weights.
        means: `[depth, hidden]`, of the calibration texts' activations.
        directions: `[depth * hidden, place]`, from activations to places.
        depths: the reader's layers as shares of the stack.
    """

    reader: str
    weights: str
    means: Tensor
    directions: Tensor
    depths: tuple[float, ...] = DEPTHS

    @property
    def width(self) -> int:
        """Numbers per text."""
        return int(self.directions.shape[1])

    @property
    def version(self) -> str:
        """Name and hash of the reader and the directions."""
        digest = hashlib.sha256(f"2 {self.weights} {self.depths}".encode())
        for part in (self.means, self.directions):
            digest.update(part.contiguous().numpy().tobytes())
        return f"universal-{digest.hexdigest()[:12]}"

    def places(self, texts: Sequence[str]) -> Float[Tensor, "text place"]:
        """Read texts: `[text, place]` float32. What is longer than the reader's window is cut.

        Raises:
            FingerprintError: the reader has other weights than the space was made with.
            ModelError: there is no such reader.
        """
        self._check()
        activations = _read(self.reader, tuple(texts), self.depths)
        return (_features(activations, self.means.double()) @ self.directions.double()).float()

    def save(self, path: str | Path) -> Path:
        """Write one file that does not exist; read it with `load_universal`."""
        about = {"umaf": "universal", "reader": self.reader, "weights": self.weights}
        depths = torch.tensor(self.depths, dtype=torch.float64)
        return write_tensors(
            path, {"means": self.means, "directions": self.directions, "depths": depths}, about
        )

    def _check(self) -> None:
        if _reader_hash(self.reader) != self.weights:
            raise FingerprintError(
                f"the universal space was made with another {self.reader} than the one found; bring its weights back, "
                "or make another space."
            )


def fit_universal(
    texts: Sequence[str],
    *,
    reader: str | Path = READER,
    width: int = WIDTH,
    depths: Sequence[float] = DEPTHS,
) -> Universal:
    """Make a space: the principal coordinates of texts in a reader's activations.

    Each depth's activations, centred and of length 1, stand side by side. Coordinates are brought half way to an equal
    spread, so that what is rare counts, and the fingerprint's first numbers still say most.

    Args:
        texts: calibration texts, more than `width`.
        reader: a model that everybody who compares fingerprints has.
        width: numbers per text.
        depths: layers to read as shares of the stack.

    Returns:
        The space.

    Raises:
        ProbeError: too few texts.
    """
    if len(texts) <= width:
        raise ProbeError(
            f"a space of {width} numbers needs more calibration texts than that, got {len(texts)}; give more."
        )
    activations = _read(str(reader), tuple(texts), tuple(depths))
    means = activations.double().mean(1)
    rows = _features(activations, means)
    _, values, directions = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    kept = min(width, int((values > 1e-6 * values[0]).sum()))
    # A sign per direction, or the file would depend on the LAPACK in use.
    found = (
        directions[:kept]
        * directions[:kept].gather(1, directions[:kept].abs().argmax(1, keepdim=True)).sign()
    )
    spread = (values[:kept] / len(rows) ** 0.5).sqrt()
    return Universal(
        str(reader),
        _reader_hash(str(reader)),
        means.float(),
        (found.T / spread).float(),
        tuple(depths),
    )


def load_universal(path: str | Path | None = None) -> Universal:
    """Read a space that `Universal.save` wrote: its file, or the folder it lies in; what ships with umaf when None.

    Raises:
        FingerprintError: no such file, or not a universal space.

    Example:
        >>> load_universal().width
        63
    """
    path = Path(path or next((folder for folder in SHIPPED if (folder / FILE).is_file()), SHIPPED[0]))
    path = path / FILE if path.is_dir() else path
    tensors, about = read_tensors(path)
    if about.get("umaf") != "universal" or not {"means", "directions", "depths"} <= set(tensors):
        raise FingerprintError(f"{path} is not a universal space of umaf; make one with fit_universal.")
    depths = tuple(tensors["depths"].tolist())
    return Universal(about["reader"], about["weights"], tensors["means"], tensors["directions"], depths)


@lru_cache(maxsize=8)
def _read(reader: str, texts: tuple[str, ...], depths: tuple[float, ...]) -> Tensor:
    """Run texts through a reader; a transfer asks for the same probes when it fingerprints and when it generates."""
    return capture(_reader(reader), texts, depths=depths, truncate=True)


@lru_cache(maxsize=2)
def _reader(name: str) -> Model:
    return open_model(name)


@lru_cache(maxsize=2)
def _reader_hash(name: str) -> str:
    return weights_hash(_reader(name))


def _features(activations: Tensor, means: Tensor) -> Tensor:
    """Centre each depth, bring every vector to length 1, and put the depths side by side, float64."""
    centred = activations.double() - means[:, None]
    lengths = centred.norm(dim=-1, keepdim=True)
    return (centred / lengths.clamp_min(1e-12)).transpose(0, 1).flatten(1)
