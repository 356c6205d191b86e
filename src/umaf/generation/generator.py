"""The Adapter Generator: a fused fingerprint and label words in, an adapter for the one target it was trained for out.

The adapter is a LoRA shared by all capabilities, which lets the target say at the answer what a text is about, and the
structured decoder's update of the last writer on top of it (`umaf.generation.structured`). Keys are linear in the
fingerprint, and begin at 0, so the first output of an untrained generator changes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from umaf.adapters import lora_modules, weight_of
from umaf.errors import FingerprintError
from umaf.extraction import Fingerprint, unbind
from umaf.extraction.store import read_tensors, write_tensors
from umaf.files import whole_folder, write_json
from umaf.generation.train import nothing
from umaf.models import Model, shape_hash, weights_hash

FORMAT = 1
FAR = 0.05
"""Share of the training fingerprints that the warning would have struck."""


@dataclass(frozen=True)
class GeneratorCard:
    """What a generator is for, and what it was made from.

    Attributes:
        target: the target's name when it was trained.
        shapes: hash of the target's shapes.
        weights: hash of the target's weights.
        extractor: version of the extractor whose fingerprints it reads.
        places: numbers per label in a fingerprint.
        writer: the module that the capabilities themselves go into.
        rank: of the shared LoRA.
        capabilities: how many it was trained on.
        near: least cosine to its nearest training fingerprint that is not called far.
        settings: how it was trained.
        curve: looks at the validation capabilities.
    """

    target: str
    shapes: str
    weights: str
    extractor: str
    places: int
    writer: str
    rank: int
    capabilities: int = 0
    near: float = -1.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    curve: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Generator:
    """A trained generator.

    Attributes:
        shared: the shared LoRA, module name -> (A [rank, in], B [out, rank]), without the writer.
        key: `[in, place]`, reads the universal space from what the writer is given.
        gain: logarithm of the scale of scores, one number.
        known: `[capability, 512]`, the fingerprints it was trained on, of length 1.
        card: what it is for.
    """

    shared: Mapping[str, tuple[Tensor, Tensor]]
    key: Tensor
    gain: Tensor
    known: Tensor
    card: GeneratorCard

    @property
    def version(self) -> str:
        """Name and hash of everything that decides the numbers."""
        digest = hashlib.sha256(f"{FORMAT} {self.card.writer} {self.card.extractor}".encode())
        for name, value in sorted(self.tensors().items()):
            digest.update(name.encode())
            digest.update(value.detach().contiguous().numpy().tobytes())
        return f"generator-{digest.hexdigest()[:12]}"

    def tensors(self) -> dict[str, Tensor]:
        """Everything that is trained, and the known fingerprints, by name."""
        named = {"key": self.key, "gain": self.gain, "known": self.known}
        for module, (a, b) in self.shared.items():
            named |= {f"shared.{module}.A": a, f"shared.{module}.B": b}
        return named

    def keys(self, directions: Float[Tensor, "label place"]) -> Float[Tensor, "in label"]:
        """Map the directions of labels to what reads them in the writer's input; gradients flow."""
        return self.gain.exp() * (self.key @ directions.to(self.key.dtype).T)

    def directions(self, fingerprint: Fingerprint, words: Sequence[str]) -> Float[Tensor, "label place"]:
        """Take the directions of labels out of a fingerprint, of length 1 on average."""
        found = unbind(fingerprint.vector[0], words, self.card.places)
        return (found / found.norm(dim=1).mean().clamp_min(1e-12)).float()

    def check(self, fingerprint: Fingerprint, target: Model) -> str | None:
        """Stop where a fingerprint or a target is not this generator's; warn where a fingerprint is far.

        Returns:
            A warning, or None.

        Raises:
            FingerprintError: another extractor, or another target.
        """
        if fingerprint.card.extractor != self.card.extractor:
            raise FingerprintError(
                f"this generator reads fingerprints of {self.card.extractor}, got one of {fingerprint.card.extractor}; "
                "extract with the extractor it was trained with, or train a generator for yours."
            )
        if shape_hash(target) != self.card.shapes or weights_hash(target) != self.card.weights:
            raise FingerprintError(
                f"this generator was trained for {self.card.target}, and {target.name} has other weights; name that "
                "target, or train a generator for this one."
            )
        if not len(self.known):
            return None
        vector = fingerprint.vector[0] / fingerprint.vector.norm().clamp_min(1e-12)
        nearest = float((self.known.float() @ vector).max())
        if nearest >= self.card.near:
            return None
        return (
            f"the fingerprint lies far from the {len(self.known)} that this generator was trained on (greatest cosine "
            f"{nearest:.2f}, usual from {self.card.near:.2f} on): check what the adapter does"
        )


def fresh_generator(
    target: Model, *, extractor: str, places: int, writer: str, rank: int = 8, seed: int = 0
) -> Generator:
    """Make a generator whose every adapter changes nothing, to start a training from.

    Args:
        target: the model it will make adapters for.
        extractor: version of the extractor whose fingerprints it will read.
        places: numbers per label in those fingerprints.
        writer: the target's last writer; see `umaf.generation.outputs.last_writer`.
        rank: of the shared LoRA.
        seed: of the shared LoRA's A.

    Returns:
        The generator; B of the shared LoRA and the keys are 0.
    """
    shared = {name: pair for name, pair in nothing(target, rank, seed).items() if name != writer}
    card = GeneratorCard(
        target.name, shape_hash(target), weights_hash(target), extractor, places, writer, rank
    )
    key = torch.zeros(weight_of(target, writer).shape[1], places)
    return Generator(shared, key, torch.zeros(()), torch.zeros(0, 512), card)


def save_generator(generator: Generator, folder: str | Path) -> Path:
    """Write a generator to a folder that does not exist.

    The shared LoRA and the known fingerprints are kept in float16; what is written is what `load_generator` gives.

    Raises:
        OutputError: the folder exists already, or cannot be written.
    """
    tensors = {
        name: value.detach().cpu().to(torch.float16 if name.startswith(("shared", "known")) else value.dtype)
        for name, value in generator.tensors().items()
    }
    with whole_folder(folder) as draft:
        write_tensors(draft / "generator.safetensors", tensors, {"umaf": "generator"})
        write_json(draft / "generator.json", {"format": FORMAT, **asdict(generator.card)})
    return Path(folder)


def load_generator(folder: str | Path) -> Generator:
    """Read a generator that `save_generator` wrote.

    Raises:
        FingerprintError: no generator there, one of another format, or weights that are not all there.
    """
    place = Path(folder)
    try:
        about = json.loads((place / "generator.json").read_text(encoding="utf-8"))
        wanted = about.pop("format")
        card = GeneratorCard(**about)
    except (OSError, ValueError, KeyError, TypeError):
        raise FingerprintError(
            f"{place} holds no generator; give a folder that `umaf train generator` wrote."
        ) from None
    if wanted != FORMAT:
        raise FingerprintError(
            f"the generator in {place} has format {wanted}, and this version of umaf reads {FORMAT}; train it again."
        )
    tensors, _ = read_tensors(place / "generator.safetensors")
    tensors = {name: value.float() for name, value in tensors.items()}
    modules = [name[7:-2] for name in tensors if name.startswith("shared.") and name.endswith(".A")]
    missing = {"key", "gain", "known"} - set(tensors) or {
        name for name in modules if f"shared.{name}.B" not in tensors
    }
    if missing or not modules:
        raise FingerprintError(f"the weights of the generator in {place} are not all there; copy it again.")
    shared = {name: (tensors[f"shared.{name}.A"], tensors[f"shared.{name}.B"]) for name in modules}
    return Generator(shared, tensors["key"], tensors["gain"], tensors["known"], card)


def fits(generator: Generator, target: Model) -> bool:
    """Tell whether every module that a generator changes is one of a target's."""
    return {*generator.shared, generator.card.writer} <= set(lora_modules(target))
