"""Train a generator for one target, through the target, on many small capabilities.

A step draws capabilities. For each, a source and some of its texts give the directions that a fingerprint of that
source would carry; other texts go through the target with the adapter that these directions become. Two losses meet:
the cross-entropy of the right labels, and how far the keys are from reading, at the answer, the place of each text in
the universal space. The second needs no capability, and takes the training off its flat start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from umaf import seeds
from umaf.adapters import cores
from umaf.errors import TaskError
from umaf.extraction import Answers, bind, prototypes
from umaf.generation.decisions import ask, decide
from umaf.generation.forward import ROUNDS, STRENGTH, seen
from umaf.generation.generator import FAR, Generator, GeneratorCard, fresh_generator
from umaf.generation.goals import Goal
from umaf.generation.newton import as_cores
from umaf.generation.structured import at_answers, listening, refined, values, writers
from umaf.models import Model
from umaf.training.devices import Devices, alone
from umaf.training.loop import Said, Trained, train
from umaf.training.material import Capability, Material
from umaf.training.settings import LoopSettings

RATES = {"key": 5.0, "gain": 5.0}
"""Keys learn faster than the shared LoRA; they are linear."""
WARM = 0.3
"""Strength of the ridge that the keys begin with, per mean squared input."""


class GeneratorSettings(LoopSettings):
    """How a generator is trained.

    Attributes:
        rank: of the shared LoRA.
        writing: share of the layers, from the top, whose writers take part; 0 is the last writer alone.
        capabilities: drawn in a step.
        texts: texts of each that go through the target.
        shown: most texts that a fingerprint is made from.
        reading: weight of the loss on reading the universal space.
        renamed: share of draws, at the end of training, whose labels get other words; it grows from 0, so that words
            mean something first and directions have to carry the capability later.
        wrong: share of a source's answers turned wrong.
        warm: texts for the closed-form start of the keys; 0 begins at nothing.
        looked: texts of each validation capability that are scored.

    Example:
        >>> GeneratorSettings(steps=10).capabilities
        2
    """

    rank: int = Field(default=8, ge=1)
    writing: float = Field(default=1.0, ge=0, le=1)
    capabilities: int = Field(default=2, ge=1)
    texts: int = Field(default=24, ge=2)
    shown: int = Field(default=150, ge=4)
    reading: float = Field(default=1.0, ge=0)
    renamed: float = Field(default=0.4, ge=0, le=1)
    wrong: float = Field(default=0.05, ge=0, lt=1)
    warm: int = Field(default=1000, ge=0)
    looked: int = Field(default=64, ge=2)


@dataclass(frozen=True)
class Drawn:
    """A capability as one step sees it: words, a source's view of it, and texts with answers."""

    cue: str
    labels: tuple[str, ...]
    directions: Tensor
    rows: Tensor
    answers: Tensor


def train_generator(
    target: Model,
    material: Material,
    *,
    settings: GeneratorSettings,
    folder: Path | None = None,
    sources: Sequence[str] = (),
    said: Said | None = None,
    devices: Devices | None = None,
) -> tuple[Generator, Trained]:
    """Train a generator.

    Args:
        target: the model it makes adapters for; left as it was.
        material: what to train on.
        settings: how.
        folder: where the state is kept, so that an interrupted training goes on.
        sources: which of the material's sources to train on; all when not named.
        said: called after each step.
        devices: processes that share the work.

    Returns:
        The generator, and how it went.

    Raises:
        TaskError: no train or no validation capability, or an unknown source.
        NumericalError: the loss became NaN or infinite.
    """
    used = _sources(material, sources)
    if not material.of("train") or not material.of("validation"):
        raise TaskError(
            "A generator needs train and validation capabilities, and one kind is missing; make other material."
        )
    torch.manual_seed(seeds.derive(settings.seed, "generator"))
    first = material.capabilities[0]
    chosen = writers(
        ask(target, _goal(material, first, first.rows[:1]), truncate=True), share=settings.writing
    )
    start = fresh_generator(
        target,
        extractor=material.extractor,
        places=material.reference.shape[1],
        writers=chosen,
        rank=settings.rank,
        seed=settings.seed,
    )
    start = replace(start, known=known_fingerprints(material, used, settings))
    lesson = Lesson(target, material, start, settings, used)
    if settings.warm:
        lesson.warm()
    leaves = {name: leaf for name, leaf in start.tensors().items() if name not in ("known", "scales")}
    for leaf in leaves.values():
        leaf.requires_grad_()
    crew = devices or alone()
    about = {"target": start.card.weights, "space": material.space, "sources": list(used)}
    done = train(
        leaves,
        lambda step: lesson.loss(crew.draw(step), step / settings.steps),
        lesson.look,
        settings=settings,
        folder=folder,
        about=about,
        rates=RATES,
        said=said,
        devices=crew,
    )
    for leaf in leaves.values():
        leaf.requires_grad_(False)
    # The shared LoRA is kept in float16; what is returned is what its file will give.
    shared = {name: (a.half().float(), b.half().float()) for name, (a, b) in start.shared.items()}
    return replace(start, shared=shared, card=_card(start, material, settings, done)), done


class Lesson:
    """A generator before its target, with everything that is made once: prompts, values, texts.

    Args:
        target: the target.
        material: what is learned from.
        generator: its tensors are read, and trained from outside.
        settings: how.
        sources: whose views are drawn.
    """

    def __init__(
        self,
        target: Model,
        material: Material,
        generator: Generator,
        settings: GeneratorSettings,
        sources: Sequence[str],
    ) -> None:
        self.target, self.material, self.generator = target, material, generator
        self.settings, self.sources = settings, tuple(sources)
        self.train, self.validation = material.of("train"), material.of("validation")
        self.words = sorted({word for one in self.train for label in one.labels for word in label.split()})
        self.cues = sorted({one.cue for one in self.train})
        self.values: Callable[..., Tensor] = lru_cache(maxsize=1024)(self._values)

    def loss(self, draw: int, share: float) -> Tensor:
        """Give the loss of one step.

        Args:
            draw: numbers the step's draws.
            share: how far the training has come, in [0, 1].
        """
        random = np.random.default_rng(seeds.derive(self.settings.seed, "generator", "step", draw))
        total = torch.zeros((), device=self.target.device)
        for _ in range(self.settings.capabilities):
            one = self.draw(random, share)
            logits, given = self.answer(one)
            total = total + functional.cross_entropy(logits, one.answers.to(logits.device))
            if self.settings.reading:
                wanted = self.material.reference[one.rows].to(given.device)
                missed = (given @ self.generator.reading().to(given.device) - wanted).square().mean()
                total = total + self.settings.reading * missed / wanted.square().mean()
        return total / self.settings.capabilities

    def draw(self, random: np.random.Generator, share: float) -> Drawn:
        """Draw a train capability, a source, the texts it is shown on, and others."""
        one = self.train[int(random.integers(len(self.train)))]
        order = torch.from_numpy(random.permutation(len(one.rows)))
        asked, shown = order[: self.settings.texts], order[self.settings.texts :][: self.settings.shown]
        shown = shown if len(shown) >= 2 * len(one.labels) else order
        source = self.sources[int(random.integers(len(self.sources)))]
        directions = view(self.material, one, source, shown, wrong=self.settings.wrong, random=random)
        cue, labels = one.cue, one.labels
        if random.random() < share * self.settings.renamed:
            cue, labels = self._rename(random, len(labels))
        if not self._speakable(cue, labels):
            cue, labels = one.cue, one.labels
        return Drawn(cue, labels, directions, one.rows[asked], one.answers[asked])

    def answer(self, one: Drawn) -> tuple[Tensor, Tensor]:
        """Let the target answer with the adapter that the directions become: logits, and what writers are given."""
        goal = self.goal(one)
        asked, rows = ask(self.target, goal, truncate=True), range(len(one.rows))
        device = self.target.device
        own = self.generator.update(self.generator.keys(one.directions), self.values(one.cue, one.labels))
        with (
            cores(self.target, *as_cores(_on(self.generator.shared, device))),
            cores(self.target, *as_cores(_on(own, device))),
            listening(asked, self.generator.card.writers) as heard,
        ):
            logits = decide(asked, rows).logits[:, 0]
        return logits, self.generator.side_by_side(at_answers(asked, rows, heard))

    def goal(self, one: Drawn) -> Goal:
        """Ask for nothing: a goal that holds texts, cue and labels."""
        texts = tuple(self.material.texts[row] for row in one.rows.tolist())
        return Goal(texts, one.cue, one.labels, torch.zeros(len(texts), len(one.labels)))

    @torch.no_grad()
    def look(self) -> dict[str, float]:
        """Score the validation capabilities: accuracy of the keys as generated ("score"), and refined on probes."""
        plain, fitted = [], []
        for one in self.validation:
            random = np.random.default_rng(seeds.derive(0, "generator", "look", one.name))
            order = torch.from_numpy(random.permutation(len(one.rows)))
            probes, asked = (
                order[self.settings.looked :][: self.settings.shown],
                order[: self.settings.looked],
            )
            source = self.sources[int(random.integers(len(self.sources)))]
            directions = view(self.material, one, source, probes, wrong=self.settings.wrong, random=random)
            drawn = Drawn(one.cue, one.labels, directions, one.rows[asked], one.answers[asked])
            logits, _ = self.answer(drawn)
            plain.append(float((logits.argmax(1).cpu() == drawn.answers).float().mean()))
            x = self.given(replace(drawn, rows=one.rows[probes])).cpu()
            keys = refined(x, x @ self.generator.keys(directions).cpu(), rounds=ROUNDS, strength=STRENGTH)
            found = ((self.given(drawn).cpu() - x.mean(0)).double() @ keys).argmax(1)
            fitted.append(float((found == drawn.answers).float().mean()))
        return {"score": float(np.mean(plain)), "refined": float(np.mean(fitted))}

    def given(self, one: Drawn) -> Tensor:
        """Read what the writers are given on texts, side by side, under the shared LoRA alone."""
        asked = ask(self.target, self.goal(one), truncate=True)
        with cores(self.target, *as_cores(_on(self.generator.shared, self.target.device))):
            return self.generator.side_by_side(seen(asked, self.generator.card.writers)[0])

    @torch.no_grad()
    def warm(self) -> None:
        """Begin the keys at the ridge regression of the universal space on what the bare target shows of texts."""
        random = np.random.default_rng(seeds.derive(self.settings.seed, "generator", "warm"))
        x, rows = [], []
        for one in random.permutation(len(self.train)).tolist():
            if sum(map(len, rows)) >= self.settings.warm:
                break
            task = self.train[one]
            chosen = task.rows[torch.from_numpy(random.permutation(len(task.rows))[: self.settings.texts])]
            drawn = Drawn(task.cue, task.labels, torch.zeros(0), chosen, chosen)
            x.append(self.given(drawn))
            rows.append(chosen)
        # Keys are learned for inputs of one size; the writers' own sizes differ by far.
        own = self.generator
        given, wanted = torch.cat(x).double().cpu(), self.material.reference[torch.cat(rows)].double()
        sizes = [own.key[writer].shape[0] for writer in own.card.writers]
        parts = given.split(sizes, dim=1)
        scales = torch.stack([part.square().mean().sqrt().clamp_min(1e-6) for part in parts])
        own.scales.copy_(scales.float())
        given = torch.cat([part / scale for part, scale in zip(parts, scales, strict=True)], dim=1)
        gram = given.T @ given
        ridge = WARM * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        found = torch.linalg.solve(gram + ridge, given.T @ wanted).float()
        for writer, part in zip(own.card.writers, found.split(sizes), strict=True):
            own.key[writer].copy_(part)

    def _rename(self, random: np.random.Generator, count: int) -> tuple[str, tuple[str, ...]]:
        chosen = random.choice(len(self.words), size=min(count, len(self.words)), replace=False)
        cue = self.cues[int(random.integers(len(self.cues)))]
        return cue, tuple(self.words[word] for word in chosen)

    def _speakable(self, cue: str, labels: tuple[str, ...]) -> bool:
        try:
            self.values(cue, labels)
        except TaskError:
            return False
        return True

    def _values(self, cue: str, labels: tuple[str, ...]) -> Tensor:
        """Give the labels' values on the bare target, read on a few texts, the same for every step."""
        rows = torch.arange(min(8, len(self.material.texts)))
        goal = self.goal(Drawn(cue, labels, torch.zeros(0), rows, rows))
        return values(ask(self.target, goal, truncate=True), self.generator.card.writers[-1]).to(
            self.target.device
        )


def view(
    material: Material,
    one: Capability,
    source: str,
    shown: Tensor,
    *,
    wrong: float = 0.0,
    random: np.random.Generator | None = None,
) -> Tensor:
    """Give the directions that a source's fingerprint of a capability carries, `[label, place]` float32.

    Args:
        material: the material.
        one: the capability.
        source: whose places.
        shown: which of the capability's texts.
        wrong: share of answers turned wrong.
        random: draws the wrong ones.
    """
    answers = one.answers[shown].clone()
    if wrong and random is not None:
        turned = torch.from_numpy(random.random(len(answers)) < wrong)
        other = torch.from_numpy(random.integers(len(one.labels), size=len(answers)))
        answers = torch.where(turned, other, answers)
    scores = 20.0 * functional.one_hot(answers, len(one.labels)).float()
    return prototypes(material.places[source][one.rows[shown]], scores).float()


def known_fingerprints(material: Material, sources: Sequence[str], settings: GeneratorSettings) -> Tensor:
    """Make one fingerprint of every train capability, from the sources in turn: `[capability, 512]` of length 1."""
    found = []
    for number, one in enumerate(material.of("train")):
        source = sources[number % len(sources)]
        words = Answers(one.cue, one.labels, torch.zeros(1, len(one.labels))).words
        rows = torch.arange(min(settings.shown, len(one.rows)))
        parts = dict(zip(words, view(material, one, source, rows), strict=True))
        vector = bind(parts)
        found.append((vector / vector.norm().clamp_min(1e-12)).float())
    # What is kept in float16 is what is used.
    return torch.stack(found).half().float()


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


def _goal(material: Material, one: Capability, rows: Tensor) -> Goal:
    texts = tuple(material.texts[row] for row in rows.tolist())
    return Goal(texts, one.cue, one.labels, torch.zeros(len(texts), len(one.labels)))


def _sources(material: Material, asked: Sequence[str]) -> tuple[str, ...]:
    unknown = [name for name in asked if name not in material.places]
    if unknown or not material.places:
        raise TaskError(
            f"The source {unknown[0] if unknown else ''!r} was asked for, but the material has "
            f"{', '.join(material.places) or 'none'}; name one of these, or make other material."
        )
    return tuple(asked) or tuple(material.places)


def _on(
    shared: Mapping[str, tuple[Tensor, Tensor]], device: torch.device
) -> dict[str, tuple[Tensor, Tensor]]:
    return {name: (a.to(device), b.to(device)) for name, (a, b) in shared.items()}
