"""Train a generator for one target, through the target, on many small capabilities.

A step draws capabilities. For each, the directions that a source's fingerprint would carry say what some of its texts
are called; from these texts the closed form makes an adapter, and other texts go through the target with it. The
cross-entropy of their right labels is followed back through the closed form into the shared LoRA, which so learns to
bring to the answer what a text is about, whatever it may be asked about it later. Where nothing is asked the target
shall go on as it was: what the adapter changes in plain text is part of the loss. In the end adapters are given the
least share of the LoRA that the validation capabilities do not miss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from umaf import seeds
from umaf.errors import FingerprintError, TaskError
from umaf.extraction import Answers, Bound, bind
from umaf.generation.decisions import ask
from umaf.generation.generator import FAR, Generator, GeneratorCard, fresh_generator, with_plain
from umaf.generation.structured import writers
from umaf.models import Model
from umaf.training.devices import Devices, alone
from umaf.training.lesson import GeneratorSettings, Lesson, questions, says, view
from umaf.training.loop import Said, Trained, train
from umaf.training.material import Capability, Material

RATES = {"size": 10.0, "ridge": 10.0}
"""Two numbers, both logarithms, take larger steps than the many of the shared LoRA."""
MOST = 12
"""Capabilities with more labels than this are not drawn: few texts of each label would be in a step."""


def train_generator(
    target: Model,
    material: Material,
    compute: Bound,
    *,
    settings: GeneratorSettings,
    begin: Generator | None = None,
    folder: Path | None = None,
    said: Said | None = None,
    devices: Devices | None = None,
) -> tuple[Generator, Trained]:
    """Train a generator.

    Args:
        target: the model it makes adapters for; left as it was.
        material: what to train on.
        compute: the bound extractor that the material was made for.
        settings: how.
        begin: a generator of this target and extractor to go on from; a fresh one when not given.
        folder: where the state is kept, so that an interrupted training goes on.
        said: called after each step.
        devices: processes that share the work.

    Returns:
        The generator, and how it went.

    Raises:
        TaskError: no train or no validation capability.
        FingerprintError: the material was made with another space, or `begin` for another target.
        NumericalError: the loss became NaN or infinite.
    """
    heard = {split: _sayable(target, material.of(split)) for split in ("train", "validation")}
    if not heard["train"] or not heard["validation"]:
        raise TaskError(
            f"A generator needs train and validation capabilities whose labels {target.name} has words for, and one "
            "kind is missing; make other material."
        )
    if material.extractor != compute.version:
        raise FingerprintError(
            f"the material was made for {material.extractor} and the extractor given is {compute.version}; make it "
            "again in this space."
        )
    torch.manual_seed(seeds.derive(settings.seed, "generator"))
    start = _start(target, material, compute, heard["train"][0], settings, begin=begin)
    lesson = Lesson(target, material, start, settings, **heard)
    leaves = {name: leaf for name, leaf in start.tensors().items() if name not in ("known", "spread")}
    for leaf in leaves.values():
        leaf.requires_grad_()
    crew = devices or alone()
    done = train(
        leaves,
        lambda step: lesson.loss(crew.draw(step)),
        lesson.look,
        # The share is found at the end; another one does not make it another training.
        settings=settings.model_copy(update={"share": None}),
        folder=folder,
        about={
            "target": start.card.weights,
            "space": material.space,
            "begin": start.card.begin,
        },
        rates=RATES,
        said=said,
        devices=crew,
    )
    for leaf in leaves.values():
        leaf.requires_grad_(False)
    # The shared LoRA is kept in float16; what is returned is what its file will give.
    shared = {name: (a.half().float(), b.half().float()) for name, (a, b) in start.shared.items()}
    lesson.generator = replace(start, shared=shared)
    share, looks = (settings.share, []) if settings.share is not None else lesson.least_share()
    card = replace(_card(start, material, settings, done), share=share, shares=looks)
    return with_plain(replace(lesson.generator, card=card), target), done


def _start(
    target: Model,
    material: Material,
    compute: Bound,
    first: Capability,
    settings: GeneratorSettings,
    *,
    begin: Generator | None,
) -> Generator:
    """Give the generator as it is before the first step, with the fingerprints of the train capabilities."""
    asked = ask(target, questions(material, first.cue, first.labels, first.rows[:1]), truncate=True)
    names = writers(asked, layers=settings.layers)
    start = fresh_generator(target, compute, writers=names, rank=settings.rank, seed=settings.seed)
    known, spread = known_fingerprints(material, settings)
    start = replace(start, known=known, spread=spread)
    if begin is None:
        return start
    same = ("shapes", "weights", "extractor", "writers")
    if any(getattr(begin.card, name) != getattr(start.card, name) for name in same):
        raise FingerprintError(
            f"the generator to go on from was made for {begin.card.target} with {begin.card.extractor}, and this "
            f"training is for {target.name} with {compute.version}; begin with one of the same, or with none."
        )
    shared = {name: (a.clone(), b.clone()) for name, (a, b) in begin.shared.items()}
    card = replace(start.card, rank=begin.card.rank, begin=begin.version)
    return replace(start, shared=shared, size=begin.size.clone(), ridge=begin.ridge.clone(), card=card)


def known_fingerprints(material: Material, settings: GeneratorSettings) -> tuple[Tensor, Tensor]:
    """Make a fingerprint of every train capability, and tell how large each number of a label usually is.

    Returns:
        `[capability, 512]` of length 1, and `[place]`.
    """
    found, squares = [], []
    for one in material.of("train"):
        words = Answers(one.cue, one.labels, torch.zeros(1, len(one.labels))).words
        parts = view(material, one, torch.arange(min(settings.probes, len(one.rows))))
        vector = bind(dict(zip(words, parts, strict=True)))
        found.append((vector / vector.norm().clamp_min(1e-12)).float())
        squares.append(parts.square().mean(0))
    # What is kept in float16 is what is used.
    return torch.stack(found).half().float(), torch.stack(squares).mean(0).sqrt().float()


def _card(start: Generator, material: Material, settings: GeneratorSettings, done: Trained) -> GeneratorCard:
    known = start.known
    cosines = known @ known.T - 2 * torch.eye(len(known))
    near = float(torch.quantile(cosines.amax(1), FAR)) if len(known) > 1 else -1.0
    looks: list[Mapping[str, Any]] = [row for row in done.curve if "score" in row]
    return replace(
        start.card,
        capabilities=len(material.of("train")),
        near=near,
        settings=settings.model_dump(),
        curve=looks,
    )


def _sayable(target: Model, capabilities: Sequence[Capability]) -> list[Capability]:
    """Keep the capabilities that a target has words for, and that have several texts of each label in a step."""
    return [one for one in capabilities if len(one.labels) <= MOST and says(target, one.cue, one.labels)]
