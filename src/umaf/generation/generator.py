"""The Adapter Generator: a fused fingerprint and label words in, an adapter for the one target it was trained for out.

The adapter is a LoRA shared by all capabilities, which lets the target say at the answer what a text is about, and the
structured decoder's update of the writers on top of it (`umaf.generation.structured`). Keys are linear in the
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

FORMAT = 2
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
        writers: the modules that the capabilities themselves go into, the last one last.
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
    writers: tuple[str, ...]
    rank: int
    capabilities: int = 0
    near: float = -1.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    curve: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Generator:
    """A trained generator.

    Attributes:
        shared: the shared LoRA, module name -> (A [rank, in], B [out, rank]), without the writers.
        key: writer -> `[in, place]`, reads the universal space from what the writer is given, over its scale.
        scales: `[writer]`, the root mean square of what each writer is given.
        gain: logarithm of the scale of scores, one number.
        known: `[capability, 512]`, the fingerprints it was trained on, of length 1.
        card: what it is for.
    """

    shared: Mapping[str, tuple[Tensor, Tensor]]
    key: Mapping[str, Tensor]
    scales: Tensor
    gain: Tensor
    known: Tensor
    card: GeneratorCard

    @property
    def version(self) -> str:
        """Name and hash of everything that decides the numbers."""
        digest = hashlib.sha256(f"{FORMAT} {self.card.writers} {self.card.extractor}".encode())
        for name, value in sorted(self.tensors().items()):
            digest.update(name.encode())
            digest.update(value.detach().contiguous().numpy().tobytes())
        return f"generator-{digest.hexdigest()[:12]}"

    def tensors(self) -> dict[str, Tensor]:
        """Everything that is trained, and the known fingerprints, by name."""
        named = {"gain": self.gain, "known": self.known, "scales": self.scales}
        named |= {f"key.{writer}": value for writer, value in self.key.items()}
        for module, (a, b) in self.shared.items():
            named |= {f"shared.{module}.A": a, f"shared.{module}.B": b}
        return named

    def side_by_side(self, given: Mapping[str, Tensor]) -> Float[Tensor, "text in"]:
        """Put what all writers are given side by side, each over its scale."""
        return torch.cat(
            [
                given[writer] / scale
                for writer, scale in zip(self.card.writers, self.scales.tolist(), strict=True)
            ],
            dim=1,
        )

    def reading(self) -> Float[Tensor, "in place"]:
        """Give the map from what `side_by_side` gives to the universal space; gradients flow."""
        return torch.cat([self.key[writer] for writer in self.card.writers])

    def keys(self, directions: Float[Tensor, "label place"]) -> Float[Tensor, "in label"]:
        """Map the directions of labels to keys for what `side_by_side` gives; gradients flow."""
        whole = self.reading()
        return self.gain.exp() * (whole @ directions.to(whole).T)

    def update(
        self, keys: Float[Tensor, "in label"], push: Float[Tensor, "label out"]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Turn keys and the labels' values into the update of every writer, (A [label, in], B [out, label])."""
        sizes = [self.key[writer].shape[0] for writer in self.card.writers]
        parts = keys.split(sizes)
        return {
            writer: ((part / scale).T, push.T)
            for writer, part, scale in zip(self.card.writers, parts, self.scales.tolist(), strict=True)
        }

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
    target: Model, *, extractor: str, places: int, writers: Sequence[str], rank: int = 8, seed: int = 0
) -> Generator:
    """Make a generator whose every adapter changes nothing, to start a training from.

    Args:
        target: the model it will make adapters for.
        extractor: version of the extractor whose fingerprints it will read.
        places: numbers per label in those fingerprints.
        writers: of the target; see `umaf.generation.structured.writers`.
        rank: of the shared LoRA.
        seed: of the shared LoRA's A.

    Returns:
        The generator; B of the shared LoRA and the keys are 0.
    """
    shared = {name: pair for name, pair in nothing(target, rank, seed).items() if name not in writers}
    card = GeneratorCard(
        target.name, shape_hash(target), weights_hash(target), extractor, places, tuple(writers), rank
    )
    key = {writer: torch.zeros(weight_of(target, writer).shape[1], places) for writer in writers}
    return Generator(shared, key, torch.ones(len(key)), torch.zeros(()), torch.zeros(0, 512), card)


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
        card = GeneratorCard(**{**about, "writers": tuple(about["writers"])})
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
    keys = {f"key.{writer}" for writer in card.writers}
    missing = ({"gain", "known", "scales"} | keys) - set(tensors) or {
        name for name in modules if f"shared.{name}.B" not in tensors
    }
    if missing or not modules:
        raise FingerprintError(f"the weights of the generator in {place} are not all there; copy it again.")
    shared = {name: (tensors[f"shared.{name}.A"], tensors[f"shared.{name}.B"]) for name in modules}
    key = {writer: tensors[f"key.{writer}"] for writer in card.writers}
    return Generator(shared, key, tensors["scales"], tensors["gain"], tensors["known"], card)


def fits(generator: Generator, target: Model) -> bool:
    """Tell whether every module that a generator changes is one of a target's."""
    return {*generator.shared, *generator.card.writers} <= set(lora_modules(target))
