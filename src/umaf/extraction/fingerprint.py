"""The fingerprint: 512 numbers that say what a model can do, and the card that says where they come from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from importlib import metadata
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from umaf.errors import FingerprintError
from umaf.extraction.store import read_tensors, write_tensors
from umaf.models import Model

WIDTH = 512


@dataclass(frozen=True)
class FingerprintCard:
    """Where a fingerprint comes from, and what it may be compared with.

    Attributes:
        model: name of the model, or of the fusion.
        base: name of its base; None where none was given and the fingerprint tells what the model
            is rather than what it learned.
        architecture: `config.model_type`.
        parameters: number of parameters.
        layers: layers of the stack that was read.
        width: size of its hidden states.
        tokenizer: hash of the vocabulary.
        probes: hash of the probes.
        probe_count: number of probes.
        truncated: how many probes were cut to the window.
        anchors: hash of the anchor texts.
        extractor: name and version of the extractor.
        normalisation: how activations were normalised.
        depths: the depths read, as shares of the stack.
        strength: length of the vector before it was brought to length 1; 0 for no change.
        unchanged: whether model and base agree on every text, so that the vector is 0.
        scaled_to: the size it was scaled to, or None.
        sources: names of the fused models; empty for a single one.
        weights: their weights as used.
        umaf: version of umaf.
        words: cue and word of each label whose meaning was read, such as "tone: good"; empty where none was known.
    """

    model: str
    base: str | None
    architecture: str
    parameters: int
    layers: int
    width: int
    tokenizer: str
    probes: str
    probe_count: int
    truncated: int
    anchors: str
    extractor: str
    normalisation: str
    depths: tuple[float, ...]
    strength: float
    unchanged: bool
    scaled_to: str | None = None
    sources: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    umaf: str = ""
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fingerprint:
    """A capability as a point in the space all models share.

    Attributes:
        vector: `[1, 512]` float32.
        card: where it comes from.
        coordinates: `[depth, probe, anchor]`, what the vector was made from; only CKA needs it, and a
            file holds it only where asked.
    """

    vector: Tensor
    card: FingerprintCard
    coordinates: Tensor | None = None

    def __post_init__(self) -> None:
        if tuple(self.vector.shape) != (1, WIDTH) or self.vector.dtype != torch.float32:
            raise FingerprintError(
                f"a fingerprint is [1, {WIDTH}] float32, got {list(self.vector.shape)} {self.vector.dtype}; make it "
                f"with extract, or load a file that Fingerprint.save wrote."
            )
        if not torch.isfinite(self.vector).all():
            raise FingerprintError(
                f"the fingerprint of {self.card.model} holds NaN or infinity; check the model's weights."
            )

    def save(self, path: str | Path, *, coordinates: bool = False) -> Path:
        """Write one safetensors file whose metadata holds the card; nothing half-written stays.

        Args:
            path: a file that does not exist.
            coordinates: also keep the coordinates, in float16, so that CKA works after loading.

        Returns:
            The path.

        Raises:
            OutputError: the file exists already, or cannot be written.
            FingerprintError: coordinates were asked for and there are none.
        """
        tensors = {"fingerprint": self.vector}
        if coordinates:
            tensors["coordinates"] = coordinates_of(self).to(torch.float16)
        return write_tensors(path, tensors, {"umaf": "fingerprint", "card": json.dumps(asdict(self.card))})

    @staticmethod
    def load(path: str | Path) -> Fingerprint:
        """Read a file that `save` wrote.

        Raises:
            FingerprintError: no such file, or not a fingerprint.
        """
        file = Path(path)
        if not file.is_file():
            raise FingerprintError(f"no fingerprint at {file}; make one with `umaf fingerprint`.")
        tensors, about = read_tensors(file)
        if about.get("umaf") != "fingerprint" or "fingerprint" not in tensors:
            raise FingerprintError(f"{file} is not a fingerprint of umaf; make one with `umaf fingerprint`.")
        rows = tensors.get("coordinates")
        card = _card(about.get("card", ""), file)
        return Fingerprint(tensors["fingerprint"], card, None if rows is None else rows.float())

    def with_vector(self, vector: Tensor, **changes: Any) -> Fingerprint:
        """Return a fingerprint with another vector and an amended card, without coordinates."""
        return Fingerprint(vector.to(torch.float32).reshape(1, WIDTH), replace(self.card, **changes))


def comparable(left: Fingerprint, right: Fingerprint, *, probes: bool = False) -> None:
    """Stop where two fingerprints do not lie in one space.

    Args:
        left: a fingerprint.
        right: another.
        probes: also ask for the same probes. Vectors are made of averages over the probes and may be
            compared across them; row by row comparisons such as CKA may not.

    Raises:
        FingerprintError: says which of extractor, anchors, normalisation, depths, base or probes differ.
    """
    names = ["extractor", "anchors", "normalisation", "depths", *(["probes"] if probes else [])]
    for name in names:
        own, other = getattr(left.card, name), getattr(right.card, name)
        if own != other:
            raise FingerprintError(
                f"{left.card.model} and {right.card.model} were fingerprinted with different {name} ({_short(own)} and "
                f"{_short(other)}), so their numbers mean different things; make both with the same {name}."
            )
    if (left.card.base is None) != (right.card.base is None):
        without, having = (left, right) if left.card.base is None else (right, left)
        raise FingerprintError(
            f"{having.card.model} was fingerprinted as a difference from its base and {without.card.model} without a "
            f"base, so one tells what was learned and the other what the model is; give a base to both or to none."
        )


def tokenizer_hash(model: Model) -> str:
    """Hash a tokenizer's vocabulary, 64 hexadecimal digits."""
    vocabulary = sorted(model.tokenizer.get_vocab().items(), key=itemgetter(1, 0))
    return hashlib.sha256(json.dumps(vocabulary).encode()).hexdigest()


def umaf_version() -> str:
    """Return the installed version of umaf, or "unknown" in a bare source tree."""
    try:
        return metadata.version("umaf")
    except metadata.PackageNotFoundError:
        return "unknown"


def coordinates_of(fingerprint: Fingerprint) -> Tensor:
    """Return the coordinates `[depth, probe, anchor]` a fingerprint was made from.

    Raises:
        FingerprintError: it carries none.
    """
    if fingerprint.coordinates is None:
        raise FingerprintError(
            f"the fingerprint of {fingerprint.card.model} carries no coordinates, because it was loaded from a file "
            f"without them or is scaled or fused; extract it again, and save it with coordinates=True."
        )
    return fingerprint.coordinates


def card_from(data: Mapping[str, Any]) -> FingerprintCard:
    """Make a card of what JSON kept of one."""
    listed = {name: tuple(data.get(name, ())) for name in ("depths", "sources", "weights", "words")}
    return FingerprintCard(**{**data, **listed})


def _card(text: str, file: Path) -> FingerprintCard:
    try:
        data = json.loads(text)
        known = {field.name for field in fields(FingerprintCard)}
        # Cards that were written before label words were kept have none.
        if set({"words": (), **data}) != known:
            raise ValueError
        return card_from(data)
    except (ValueError, TypeError, AttributeError):
        raise FingerprintError(
            f"the card in {file} is not one this version of umaf writes; make the fingerprint again."
        ) from None


def _short(value: object) -> str:
    return value[:24] if isinstance(value, str) else str(value)
