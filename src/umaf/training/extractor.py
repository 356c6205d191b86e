"""Train the Capability Extractor: one capability in two architectures shall have one fingerprint.

A step draws capabilities and, of each, entries of different models. InfoNCE and Multi-Similarity bring those together;
a reader behind a reversed gradient and a covariance penalty take out what tells the base; the fingerprint of two
capabilities at once is brought to the direction of their sum. Each entry loses a random half of its probes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from umaf import seeds
from umaf.errors import TaskError
from umaf.extraction import Inputs
from umaf.extraction.trained import Trained as Extractor
from umaf.extraction.trained import untrained
from umaf.training.accept import retrieval
from umaf.training.devices import Devices, alone
from umaf.training.entries import Entry, drawn, stacked, together
from umaf.training.loop import Said, Trained, train
from umaf.training.losses import additivity, base_covariance, info_nce, multi_similarity, reversed_gradient
from umaf.training.settings import LoopSettings


class ExtractorSettings(LoopSettings):
    """How an extractor is trained.

    Attributes:
        capabilities: drawn in a step.
        entries: of each, from different bases where there are.
        share: of its probes that an entry shows in a step.
        temperature: of InfoNCE.
        similar: weight of Multi-Similarity.
        reversing: strength of the reversed gradient from the reader of bases; 0 leaves it out.
        covariance: weight of the covariance of fingerprint and base.
        adding: weight of additivity.
        behaviour: read the behavioural token.

    Example:
        >>> ExtractorSettings(steps=10).entries
        2
    """

    rate: float = Field(default=3e-4, gt=0)
    capabilities: int = Field(default=12, ge=2)
    entries: int = Field(default=2, ge=2)
    share: float = Field(default=0.5, gt=0, le=1)
    temperature: float = Field(default=0.1, gt=0)
    similar: float = Field(default=0.5, ge=0)
    reversing: float = Field(default=0.1, ge=0)
    covariance: float = Field(default=1.0, ge=0)
    adding: float = Field(default=1.0, ge=0)
    behaviour: bool = True


def train_extractor(
    entries: Sequence[Entry],
    *,
    settings: ExtractorSettings,
    folder: Path | None = None,
    said: Said | None = None,
    devices: Devices | None = None,
) -> tuple[Extractor, Trained]:
    """Train an extractor.

    Args:
        entries: of train and validation capabilities; held-out ones are refused.
        settings: how.
        folder: where the state is kept, so that an interrupted training goes on.
        said: called after each step.
        devices: processes that share the work.

    Returns:
        The extractor, in evaluation mode, and how it went.

    Raises:
        TaskError: a held-out entry, or too few capabilities that two models have.
        NumericalError: the loss became NaN or infinite.
    """
    known, watched = _parted(entries)
    first = entries[0].inputs
    extractor = untrained(
        seed=settings.seed,
        depths=first.depths,
        normalisation=first.normalisation,
        behaviour=settings.behaviour,
    )
    bases = sorted({entry.card.base for entry in known})
    torch.manual_seed(seeds.derive(settings.seed, "extractor", "reader"))
    parts = nn.ModuleDict(
        {"encoder": extractor.encoder, "head": extractor.head, "reader": nn.Linear(512, len(bases))}
    )
    groups: dict[str, list[Entry]] = {}
    for entry in known:
        groups.setdefault(entry.card.capability, []).append(entry)
    shared = {name: group for name, group in groups.items() if len(group) > 1}
    if len(shared) < 2:
        raise TaskError(
            f"An extractor learns from capabilities that several models have, and {len(shared)} of {len(groups)} are "
            "of more than one; add experts of other models."
        )
    crew = devices or alone()

    def loss(step: int) -> Tensor:
        return _loss(parts, shared, bases, settings, crew.draw(step))

    def look() -> dict[str, float]:
        vectors = torch.cat([fingerprinted(extractor, entry.inputs) for entry in watched])
        found = retrieval(vectors, [entry.card for entry in watched])
        return {"score": found["top1"], "top5": found["top5"]}

    done = train(
        dict(parts.named_parameters()),
        loss,
        look,
        settings=settings,
        folder=folder,
        about={"entries": sorted(_name(entry) for entry in entries)},
        said=said,
        devices=crew,
    )
    extractor.encoder.requires_grad_(False)
    extractor.head.requires_grad_(False)
    return extractor, done


def fingerprinted(extractor: Extractor, inputs: Inputs) -> Tensor:
    """Give the fingerprint `[1, 512]` of one entry's inputs, without gradients."""
    return extractor(inputs).float()


def _loss(
    parts: nn.ModuleDict,
    groups: dict[str, list[Entry]],
    bases: list[str],
    settings: ExtractorSettings,
    draw: int,
) -> Tensor:
    random = np.random.default_rng(seeds.derive(settings.seed, "extractor", "step", draw))
    names = sorted(groups)
    chosen = random.choice(len(names), size=min(settings.capabilities, len(names)), replace=False)
    picked = [entry for at in chosen for entry in _pick(groups[names[at]], settings.entries, random)]
    inputs = [
        drawn(entry, int(random.integers(2**31)), share=settings.share, seed=settings.seed)
        for entry in picked
    ]
    pairs = _pairs([entry.card.base for entry in picked], [entry.card.capability for entry in picked])
    joined = [together(inputs[one], inputs[other]) for one, other in pairs]
    vectors = _encode(parts, [*inputs, *joined], settings.behaviour)
    own, both = vectors[: len(inputs)], vectors[len(inputs) :]
    group = torch.tensor([names.index(entry.card.capability) for entry in picked])
    base = torch.tensor([bases.index(entry.card.base) for entry in picked])
    total = info_nce(own, group, temperature=settings.temperature)
    total = total + settings.similar * multi_similarity(own, group)
    total = total + settings.covariance * base_covariance(own, base)
    if settings.reversing:
        hidden = reversed_gradient(own, settings.reversing)
        total = total + functional.cross_entropy(parts["reader"](hidden), base)
    if settings.adding and pairs:
        total = total + settings.adding * additivity(both, own[torch.tensor(pairs)])
    return total


def _encode(parts: nn.ModuleDict, inputs: Sequence[Inputs], behaviour: bool) -> Tensor:
    batch, depths, mask = stacked(inputs, behaviour=behaviour)
    device = next(parts.parameters()).device
    return parts["head"](parts["encoder"](batch.to(device), depths.to(device), mask.to(device)))


def _pick(group: Sequence[Entry], count: int, random: np.random.Generator) -> list[Entry]:
    """Draw entries of one capability, from different bases as long as there are."""
    order = [group[at] for at in random.permutation(len(group))]
    seen: dict[str, int] = {}
    for at, entry in enumerate(order):
        seen.setdefault(entry.card.base, at)
    first = [order[at] for at in seen.values()]
    rest = [entry for at, entry in enumerate(order) if at not in seen.values()]
    return [*first, *rest][:count]


def _pairs(bases: Sequence[str], capabilities: Sequence[str]) -> list[tuple[int, int]]:
    """Pair entries of one base and different capabilities, each entry once."""
    left: dict[str, int] = {}
    found = []
    for at, base in enumerate(bases):
        before = left.get(base)
        if before is not None and capabilities[before] != capabilities[at]:
            found.append((before, at))
            del left[base]
        else:
            left[base] = at
    return found


def _parted(entries: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    held = [entry for entry in entries if entry.card.split == "heldout"]
    if held:
        raise TaskError(
            f"An extractor was to be trained on {held[0].card.capability!r}, which is held out; leave it out."
        )
    known = [entry for entry in entries if entry.card.split == "train"]
    watched = [entry for entry in entries if entry.card.split == "validation"]
    if not known or len({entry.card.base for entry in watched}) < 2:
        raise TaskError(
            "An extractor needs train capabilities, and validation capabilities of two or more models; add some."
        )
    return known, watched


def _name(entry: Entry) -> str:
    return f"{entry.card.capability} {entry.card.base} {entry.card.seed}"
