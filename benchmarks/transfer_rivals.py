"""What a generated adapter has to beat: one adapter for everything, the nearest one, and one made from words alone."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.making import RANK, bare, task
from umaf import seeds
from umaf.adapters import Factors
from umaf.extraction import Answers, Fingerprint, load_bound
from umaf.generation.generate import shorten
from umaf.generation.generator import Generator
from umaf.generation.goals import Goal, labelled_goal
from umaf.generation.train import Schedule, train_lora
from umaf.models import Model
from umaf.tensors import ridge
from umaf.training.lesson import says, view
from umaf.training.material import Capability, Material, load_material

TOGETHER, ALONE = Schedule(steps=600), Schedule(steps=100)
LARGE_TOGETHER, LARGE_ALONE = Schedule(steps=120, rate=1e-3), Schedule(steps=40, rate=1e-3)
SHARE = 40
"""Train capabilities of the adapter for everything, drawn once; more would each get fewer steps."""
WORDS = 1e-1


@functools.cache
def material(cache: Path) -> Material:
    """Open the material of the generators."""
    return load_material(cache / "material.safetensors")


def closed_form(own: Generator) -> Generator:
    """Take a generator's training away: the same decoder, and a shared LoRA that changes nothing."""
    shared = {name: (a, torch.zeros_like(b)) for name, (a, b) in own.shared.items()}
    return dataclasses.replace(own, shared=shared)


def multitask(target: str, cache: Path) -> Factors:
    """Train one LoRA on the labels of many train capabilities, and keep it."""
    file = cache / "rivals" / f"multitask--{target}.pt"
    if not file.exists():
        own, model = material(cache), bare(target)
        some = [one for one in own.of("train") if says(model, one.cue, one.labels)]
        order = np.random.default_rng(seeds.derive(0, "transfer", "multitask")).permutation(len(some))
        goals = [taught(own, some[at], model) for at in order[:SHARE]]
        steps = LARGE_TOGETHER if target == "minilm" else TOGETHER
        _keep(train_lora(model, goals, rank=RANK, schedule=steps, seed=0), file)
    return torch.load(file, weights_only=True)


def nearest(target: str, fingerprint: Fingerprint, name: str, own: Generator, cache: Path) -> Factors:
    """Train a LoRA on the labels of the train capability whose directions lie closest, and keep it.

    Words differ between capabilities, so what is compared is the greatest cosine between their labels' directions.
    """
    whole, model = material(cache), bare(target)
    some = [one for one in whole.of("train") if says(model, one.cue, one.labels)]
    given = _directions(fingerprint, name, own)
    closeness = [
        float((given @ _unit(view(whole, one, torch.arange(len(one.rows)))).T).amax(1).mean()) for one in some
    ]
    return alone(target, some[int(np.argmax(closeness))], cache)


def alone(target: str, one: Capability, cache: Path) -> Factors:
    """Train a LoRA on the labels of one train capability, and keep it."""
    file = cache / "rivals" / f"alone--{target}--{one.name.replace('/', '-')}.pt"
    if not file.exists():
        model, steps = bare(target), LARGE_ALONE if target == "minilm" else ALONE
        goal = taught(material(cache), one, model)
        _keep(train_lora(model, [goal], rank=RANK, schedule=steps, seed=0), file)
    return torch.load(file, weights_only=True)


def said_by_words(goal: Goal, cache: Path) -> Tensor:
    """Guess the directions of labels from their words alone: the generator conditioned on text.

    A ridge regression, over the labels of all train capabilities, from the place of a label's word to its direction.
    """
    words, directions = _words(cache)
    space = load_bound().space
    asked = space.places([f"{goal.cue}: {label}" for label in goal.labels])
    change = ridge(words, directions, strength=WORDS)
    guess = asked.double() @ change
    return guess - guess.mean(0)


@functools.cache
def _words(cache: Path) -> tuple[Tensor, Tensor]:
    whole, space = material(cache), load_bound().space
    train = whole.of("train")
    texts = [f"{one.cue}: {label}" for one in train for label in one.labels]
    found = torch.cat([view(whole, one, torch.arange(len(one.rows))) for one in train])
    return space.places(texts).double(), found


def _directions(fingerprint: Fingerprint, name: str, own: Generator) -> Tensor:
    known = task(name)
    words = Answers(known.cue, known.labels, torch.zeros(1, len(known.labels))).words
    found = own.directions(fingerprint, [words])
    return _unit(torch.stack([found[word] for word in words]).double())


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)


def taught(whole: Material, one: Capability, model: Model, *, rows: slice = slice(None)) -> Goal:
    """Want the true labels of a capability's texts, cut to a model's window."""
    texts = tuple(whole.texts[row] for row in one.rows[rows].tolist())
    answers = [one.labels[answer] for answer in one.answers[rows].tolist()]
    return shorten(model, labelled_goal(texts, one.cue, one.labels, answers))[0]


def _keep(factors: Factors, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    torch.save(dict(factors), part)
    part.replace(file)
