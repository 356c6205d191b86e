"""The Adapter Generator: a fused fingerprint and label words in, an adapter for the one target it was trained for out.

The adapter is a LoRA shared by all capabilities, which lets the target bring to the answer what a text is about, and
the structured decoder's update of the last writers on top of it (`umaf.generation.structured`). The shared LoRA begins
at 0, so an untrained generator is the closed form alone; of a trained one adapters are given a share.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from umaf.activations import ANCHORS
from umaf.adapters import cores, lora_modules, weight_of
from umaf.errors import FingerprintError
from umaf.extraction import Bound, Fingerprint, Universal, load_universal, unbind
from umaf.extraction.store import read_tensors, write_tensors
from umaf.extraction.universal import FILE
from umaf.files import whole_folder, write_json
from umaf.generation.newton import as_cores
from umaf.generation.structured import corrected, fitted, levelled, plainly
from umaf.generation.train import nothing
from umaf.models import Model, shape_hash, weights_hash

FORMAT = 4
READABLE = (3, FORMAT)
"""Generators of format 3 give adapters all of their shared LoRA."""
SHIPPED = (
    Path(__file__).resolve().parents[3] / "zoo" / "generators",  # a checkout
    Path(__file__).resolve().parents[1] / "zoo_generators",  # an installed wheel
)
SIZE, RIDGE = 3.0, 3.0
"""What a generator begins with: scores in nats, and the strength of the ridge."""
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
        writers: the modules that the capabilities themselves go into, the last one last.
        given: numbers that each of them is given.
        rank: of the shared LoRA.
        capabilities: how many it was trained on.
        near: least cosine to its nearest training fingerprint that is not called far.
        settings: how it was trained.
        curve: looks at the validation capabilities.
        begin: version of the generator that its training went on from; empty for a fresh start.
        share: of the trained shared LoRA that adapters are given.
        shares: looks at the validation capabilities with several shares.
    """

    target: str
    shapes: str
    weights: str
    extractor: str
    writers: tuple[str, ...]
    given: Mapping[str, int]
    rank: int
    capabilities: int = 0
    near: float = -1.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    curve: Sequence[Mapping[str, Any]] = ()
    begin: str = ""
    share: float = 1.0
    shares: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Generator:
    """A trained generator.

    Attributes:
        shared: the shared LoRA as trained, module name -> (A [rank, in], B [out, rank]), without the writers.
        size: logarithm of the standard deviation of a label's score, in nats.
        ridge: logarithm of the strength of the ridge that keys are fitted with.
        spread: `[place]`, how large each number of a label's direction usually is.
        plain: writer -> `[token, in]`, what it is given in ordinary text, under the shared LoRA.
        known: `[capability, 512]`, the fingerprints it was trained on, of length 1.
        space: the universal space that those fingerprints are told in.
        card: what it is for.
    """

    shared: Mapping[str, tuple[Tensor, Tensor]]
    size: Tensor
    ridge: Tensor
    spread: Tensor
    plain: Mapping[str, Tensor]
    known: Tensor
    space: Universal
    card: GeneratorCard

    def standing(self, device: torch.device) -> dict[str, tuple[Tensor, Tensor]]:
        """Give what every adapter has: the share of the shared LoRA that the card keeps; gradients flow."""
        return {name: (a.to(device), self.card.share * b.to(device)) for name, (a, b) in self.shared.items()}

    @property
    def version(self) -> str:
        """Name and hash of everything that decides the numbers; those of format 3 keep the name they had."""
        share = "" if self.card.share == 1 else f" {self.card.share}"
        digest = hashlib.sha256(
            f"3 {self.card.writers} {self.card.extractor} {self.space.version}{share}".encode()
        )
        for name, value in sorted(self.tensors().items()):
            digest.update(name.encode())
            digest.update(value.detach().contiguous().numpy().tobytes())
        return f"generator-{digest.hexdigest()[:12]}"

    def tensors(self) -> dict[str, Tensor]:
        """Everything that is trained, and the known fingerprints, by name."""
        named = {"size": self.size, "ridge": self.ridge, "spread": self.spread, "known": self.known}
        named |= {f"plain.{writer}": rows for writer, rows in self.plain.items()}
        for module, (a, b) in self.shared.items():
            named |= {f"shared.{module}.A": a, f"shared.{module}.B": b}
        return named

    def side_by_side(
        self, given: Mapping[str, Tensor], scales: Mapping[str, Tensor] | None = None
    ) -> tuple[Float[Tensor, "text in"], Mapping[str, Tensor]]:
        """Put what all writers are given side by side, each over its root mean square or the scales given."""
        scales = scales or {
            writer: given[writer].detach().square().mean().sqrt().clamp_min(1e-6)
            for writer in self.card.writers
        }
        return torch.cat([given[writer] / scale for writer, scale in scales.items()], dim=1), scales

    def keys(
        self,
        reads: Sequence[Float[Tensor, "text in"]],
        said: Sequence[Float[Tensor, "text label"]],
        logits: Sequence[Float[Tensor, "text label"]],
        scales: Mapping[str, Tensor],
    ) -> list[Float[Tensor, "in label"]]:
        """Fit keys to the probes of one or more capabilities at once; gradients flow.

        Args:
            reads: what `side_by_side` gives, per capability.
            said: what each probe is called, 1 or 0.
            logits: the target's own, of the labels.
            scales: of the writers, from `side_by_side`.
        """
        told = fitted(reads, said, self.ridge.exp(), plain=self._silent(scales))
        level = levelled(reads, logits)
        return [self.size.exp() * one + other for one, other in zip(told, level, strict=True)]

    def corrections(
        self,
        reads: Sequence[Float[Tensor, "text in"]],
        said: Sequence[Float[Tensor, "text label"]],
        logits: Sequence[Float[Tensor, "text label"]],
        scales: Mapping[str, Tensor],
    ) -> list[Float[Tensor, "in label"]]:
        """Find what to add to keys, from what a target does with them: as `keys`, all read with the adapter active."""
        strength, size = self.ridge.exp(), self.size.exp()
        return corrected(reads, said, logits, strength, size=size, plain=self._silent(scales))

    def _silent(self, scales: Mapping[str, Tensor]) -> Float[Tensor, "token in"] | None:
        """Put what the writers are given in ordinary text side by side; None where nothing was heard."""
        parts = [self.plain[writer].to(scale) / scale for writer, scale in scales.items() if self.plain]
        return torch.cat(parts, dim=1) if parts else None

    def update(
        self, keys: Float[Tensor, "in label"], push: Float[Tensor, "label out"], scales: Mapping[str, Tensor]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Turn keys and the labels' values into the update of every writer, (A [label, in], B [out, label])."""
        parts = keys.split([self.card.given[writer] for writer in self.card.writers])
        return {
            writer: ((part / scales[writer]).T, push.T)
            for writer, part in zip(self.card.writers, parts, strict=True)
        }

    def directions(
        self, fingerprint: Fingerprint, capabilities: Sequence[Sequence[str]]
    ) -> dict[str, Float[Tensor, " place"]]:
        """Take the directions of labels out of a fingerprint, of length 1 on average.

        Args:
            fingerprint: of this generator's extractor.
            capabilities: the names of each one's labels; their directions add up to 0.
        """
        words = list(dict.fromkeys(name for group in capabilities for name in group))
        width = self.space.width + 1
        found = unbind(fingerprint.vector[0], words, width, spread=self.spread, balanced=capabilities)
        found = (found / found.norm(dim=1).mean().clamp_min(1e-12)).float()
        return dict(zip(words, found, strict=True))

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
    target: Model, compute: Bound, *, writers: Sequence[str], rank: int = 8, seed: int = 0
) -> Generator:
    """Make the generator that a training starts from: the closed form, and a shared LoRA that changes nothing.

    Args:
        target: the model it will make adapters for.
        compute: the extractor whose fingerprints it will read.
        writers: of the target; see `umaf.generation.structured.writers`.
        rank: of the shared LoRA.
        seed: of the shared LoRA's A.
    """
    shared = {name: pair for name, pair in nothing(target, rank, seed).items() if name not in writers}
    card = GeneratorCard(
        target.name,
        shape_hash(target),
        weights_hash(target),
        compute.version,
        tuple(writers),
        {writer: weight_of(target, writer).shape[1] for writer in writers},
        rank,
    )
    size, ridge = torch.tensor(SIZE).log(), torch.tensor(RIDGE).log()
    usual = torch.ones(compute.space.width + 1)
    return Generator(shared, size, ridge, usual, {}, torch.zeros(0, 512), compute.space, card)


def with_plain(generator: Generator, target: Model) -> Generator:
    """Let a generator hear what its writers are given in ordinary text, so that its keys are silent there.

    The anchor texts stand for ordinary text, at a drawn place of each: more of it makes keys lose answers.
    """
    with cores(target, *as_cores(generator.standing(target.device))):
        heard = plainly(target, generator.card.writers, ANCHORS)
    # What is kept in float16 is what is used.
    return replace(generator, plain={writer: rows.half().float().cpu() for writer, rows in heard.items()})


def save_generator(generator: Generator, folder: str | Path) -> Path:
    """Write a generator to a folder that does not exist.

    Shared LoRA, plain rows and known fingerprints are kept in float16; what is written is what `load_generator` gives.

    Raises:
        OutputError: the folder exists already, or cannot be written.
    """
    tensors = {
        name: value.detach()
        .cpu()
        .to(torch.float16 if name.startswith(("shared", "known", "plain")) else value.dtype)
        for name, value in generator.tensors().items()
    }
    with whole_folder(folder) as draft:
        write_tensors(draft / "generator.safetensors", tensors, {"umaf": "generator"})
        generator.space.save(draft / FILE)
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
        known = about.pop("format") in READABLE
        card = GeneratorCard(**{**about, "writers": tuple(about["writers"])}) if known else None
        sound = card is None or 0 <= float(card.share) <= 1
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        sound, card = False, None
    if not sound:
        raise FingerprintError(
            f"{place} holds no generator; give a folder that `umaf train generator` wrote."
        )
    if card is None:
        raise FingerprintError(
            f"the generator in {place} was written by another version of umaf; train it again with this one."
        )
    tensors, _ = read_tensors(place / "generator.safetensors")
    tensors = {name: value.float() for name, value in tensors.items()}
    modules = [name[7:-2] for name in tensors if name.startswith("shared.") and name.endswith(".A")]
    wanted = {"size", "ridge", "spread", "known", *(f"plain.{writer}" for writer in card.writers)}
    missing = wanted - set(tensors) or {name for name in modules if f"shared.{name}.B" not in tensors}
    if missing or not modules:
        raise FingerprintError(f"the weights of the generator in {place} are not all there; copy it again.")
    shared = {name: (tensors[f"shared.{name}.A"], tensors[f"shared.{name}.B"]) for name in modules}
    return Generator(
        shared,
        tensors["size"],
        tensors["ridge"],
        tensors["spread"],
        {writer: tensors[f"plain.{writer}"] for writer in card.writers},
        tensors["known"],
        load_universal(place / FILE),
        card,
    )


def shipped_generator(target: Model) -> Path | None:
    """Find the folder of the generator that ships with umaf for a target; None where none does.

    Example:
        >>> from umaf.models import open_model
        >>> shipped_generator(open_model("zoo:bert-5m")) is None
        True
    """
    for card in sorted(card for folder in SHIPPED for card in folder.glob("*/generator.json")):
        if json.loads(card.read_text(encoding="utf-8"))["weights"] == weights_hash(target):
            return card.parent
    return None


def fits(generator: Generator, target: Model) -> bool:
    """Tell whether every module that a generator changes is one of a target's."""
    return {*generator.shared, *generator.card.writers} <= set(lora_modules(target))
