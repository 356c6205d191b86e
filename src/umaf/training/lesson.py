"""What a generator learns from: a step's capabilities, and its target with the adapter that the probes become."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from umaf import seeds
from umaf.activations import ANCHORS
from umaf.adapters import cores
from umaf.errors import TaskError
from umaf.extraction import along, prototypes
from umaf.generation.decisions import Asked, ask, decide
from umaf.generation.generator import SIZE, Generator
from umaf.generation.goals import Goal
from umaf.generation.newton import as_cores
from umaf.generation.structured import at_answers, listening, values
from umaf.models import Model
from umaf.readout import make_readout
from umaf.training.material import Capability, Material
from umaf.training.plain import Plain
from umaf.training.settings import LoopSettings

PRICE = 0.1
"""What a nat per token of plain text counts against right answers when looks are compared."""
SHARES, MISSED = (0.5, 0.75, 1.0), 0.01
"""Shares of the trained LoRA that are looked at, and how much less a score may be for less of it: a standard error."""


class GeneratorSettings(LoopSettings):
    """How a generator is trained.

    Attributes:
        rank: of the shared LoRA.
        layers: how many, from the top, the capabilities themselves are written into; 0 is the last writer alone.
        capabilities: drawn in a step.
        texts: texts of each that go through the target with their adapter.
        shown: probes of each in a step.
        renamed: share of draws whose labels get other words, so that no word means anything by itself.
        wrong: share of a source's answers turned wrong.
        reading: weight of the cross-entropy of the keys' own scores, beside that of the target's answers.
        keeping: weight of what the adapter changes in plain text, in nats per token.
        plain: rows of plain text in a step, as many for the keys to be silent on as for what changes.
        looked: texts of each validation capability that are scored.
        probes: probes of each validation capability.
        share: of the trained shared LoRA that adapters are given; when not given, the least of `SHARES` that the
            validation capabilities do not miss.

    Example:
        >>> GeneratorSettings(steps=10).capabilities
        2
    """

    steps: int = Field(default=600, ge=1)
    rate: float = Field(default=3e-3, gt=0)
    rank: int = Field(default=8, ge=1)
    layers: int = Field(default=1, ge=0)
    capabilities: int = Field(default=2, ge=1)
    texts: int = Field(default=24, ge=2)
    shown: int = Field(default=96, ge=4)
    renamed: float = Field(default=0.3, ge=0, le=1)
    wrong: float = Field(default=0.05, ge=0, lt=1)
    reading: float = Field(default=1.0, ge=0)
    keeping: float = Field(default=1.0, ge=0)
    plain: int = Field(default=12, ge=1)
    looked: int = Field(default=48, ge=2)
    probes: int = Field(default=192, ge=4)
    share: float | None = Field(default=None, ge=0, le=1)


@dataclass(frozen=True)
class Drawn:
    """A capability as one step sees it: words, probes with what they are called, and other texts with answers."""

    cue: str
    labels: tuple[str, ...]
    probes: Tensor
    called: Tensor
    rows: Tensor
    answers: Tensor


@dataclass(frozen=True)
class Answered:
    """What a target does with an adapter: its answers, the keys' own scores, and what changed in plain text."""

    logits: Tensor
    keys: Tensor
    lost: Tensor


class Lesson:
    """A generator before its target, with everything that is made once: words, values.

    Args:
        target: the target.
        material: what is learned from.
        generator: its tensors are read, and trained from outside.
        settings: how.
        train: capabilities to draw from.
        validation: capabilities to look at.
    """

    def __init__(  # what is drawn from was chosen for the target
        self,
        target: Model,
        material: Material,
        generator: Generator,
        settings: GeneratorSettings,
        *,
        train: Sequence[Capability],
        validation: Sequence[Capability],
    ) -> None:
        self.target, self.material, self.generator, self.settings = target, material, generator, settings
        self.train, self.validation = train, validation
        self.words = sorted({word for one in self.train for label in one.labels for word in label.split()})
        self.cues = sorted({one.cue for one in self.train})
        self.values: Callable[..., Tensor] = lru_cache(maxsize=1024)(self._values)
        # What keys are silent on is what `with_plain` keeps at the end; what must not change is other text.
        self.silent, self.plain = Plain(target, ANCHORS), Plain(target, material.texts)

    def loss(self, draw: int) -> Tensor:
        """Give the loss of one step; its draws are numbered by `draw`."""
        random = np.random.default_rng(seeds.derive(self.settings.seed, "generator", "step", draw))
        total = torch.zeros((), device=self.target.device)
        for _ in range(self.settings.capabilities):
            one = self.draw(random)
            answered = self.answer(one, random)
            answers = one.answers.to(total.device)
            total = total + functional.cross_entropy(answered.logits, answers)
            total = total + self.settings.reading * functional.cross_entropy(answered.keys, answers)
            total = total + self.settings.keeping * answered.lost
        return total / self.settings.capabilities

    def draw(self, random: np.random.Generator) -> Drawn:
        """Draw a train capability, probes of it as a source would call them, and other texts."""
        one = self.train[int(random.integers(len(self.train)))]
        drawn = self.shown(one, random, texts=self.settings.texts, probes=self.settings.shown)
        if random.random() < self.settings.renamed:
            cue, labels = self._rename(random, len(one.labels))
            if says(self.target, cue, labels):
                return replace(drawn, cue=cue, labels=labels)
        return drawn

    def shown(self, one: Capability, random: np.random.Generator, *, texts: int, probes: int) -> Drawn:
        """Part a capability's texts into some to answer and some to probe it with."""
        order = torch.from_numpy(random.permutation(len(one.rows)))
        texts = min(texts, len(order) // 3)
        asked, chosen = order[:texts], order[texts:][:probes]
        found = view(self.material, one, chosen, wrong=self.settings.wrong, random=random)
        called = along(found, self.material.places[one.rows[chosen]]).argmax(1)
        return Drawn(one.cue, one.labels, one.rows[chosen], called, one.rows[asked], one.answers[asked])

    def answer(self, one: Drawn, random: np.random.Generator, *, share: float = 1.0) -> Answered:
        """Let the target answer with the adapter that the probes become; `share` is of the shared LoRA."""
        device = self.target.device
        own = replace(self.generator, card=replace(self.generator.card, share=share))
        rows = torch.cat([one.probes, one.rows])
        asked = ask(self.target, questions(self.material, one.cue, one.labels, rows), truncate=True)
        again = ask(self.target, questions(self.material, one.cue, one.labels, one.rows), truncate=True)
        text = self.plain.rows(random, self.settings.plain)
        with torch.no_grad():
            bare = self.plain.said(text)
        push = self.values(one.cue, one.labels)  # of the bare target, the same in every step
        with cores(self.target, *as_cores(own.standing(device))):
            with listening(asked, own.card.writers) as heard:
                before = decide(asked, range(len(rows))).logits[:, 0]
            given = at_answers(asked, range(len(rows)), heard)
            own = replace(own, plain=self._heard(asked, random))
            _, scales = own.side_by_side({name: x[: len(one.probes)] for name, x in given.items()})
            x = torch.cat([given[writer] / scale for writer, scale in scales.items()], dim=1)
            shown, other = x[: len(one.probes)], x[len(one.probes) :]
            said = functional.one_hot(one.called, len(one.labels)).float().to(device)
            [keys] = own.keys([shown], [said], [before[: len(one.probes)]], scales)
            update = own.update(keys, push, scales)
            with cores(self.target, *as_cores(update)):
                logits = decide(again, range(len(one.rows))).logits[:, 0]
                lost = self.plain.lost(bare, self.plain.said(text))
        told = (shown - shown.mean(0)) @ keys
        scores = (other - shown.mean(0)) @ keys / told.detach().std().clamp_min(1e-6) * SIZE
        return Answered(logits, scores, lost)

    @torch.no_grad()
    def _heard(self, asked: Asked, random: np.random.Generator) -> dict[str, Tensor]:
        """Hear what the writers are given in plain text, with the adapter that is active."""
        with listening(asked, self.generator.card.writers) as heard:
            self.silent.said(self.silent.rows(random, self.settings.plain))
        return {name: x.reshape(-1, x.shape[-1]).float() for name, x in heard.items()}

    @torch.no_grad()
    def look(self, share: float = 1.0) -> dict[str, float]:
        """Look at the validation capabilities, with a share of the shared LoRA.

        Returns:
            How many answers of the target are right ("right"), how many of the keys' own ("keys"), what the adapters
            change in plain text ("lost", see `Plain.lost`), and what counts: right - `PRICE` * lost ("score").
        """
        right, keys, lost = [], [], []
        for one in self.validation:
            random = np.random.default_rng(seeds.derive(0, "generator", "look", one.name))
            drawn = self.shown(one, random, texts=self.settings.looked, probes=self.settings.probes)
            found = self.answer(drawn, random, share=share)
            for said, kept in ((found.logits, right), (found.keys, keys)):
                kept.append(float((said.argmax(1).cpu() == drawn.answers).float().mean()))
            lost.append(float(found.lost))
        means = {"right": np.mean(right), "keys": np.mean(keys), "lost": np.mean(lost)}
        score = means["right"] - PRICE * means["lost"]
        return {name: float(value) for name, value in {"score": score, **means}.items()}

    def least_share(self) -> tuple[float, list[dict[str, float]]]:
        """Find the least share of the shared LoRA that the validation capabilities do not miss.

        They are of the subjects that trained it, and others, which it makes a target overlook, have no say. So less of
        it is better where the score is as good (Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022).
        Looks are at adapters before their correction, which makes up for some of what a smaller share misses.

        Returns:
            The share, and a look at each one that was considered.
        """
        looks = [{"share": share, **self.look(share)} for share in SHARES]
        best = max(look["score"] for look in looks)
        return next(look["share"] for look in looks if look["score"] >= best - MISSED), looks

    def _rename(self, random: np.random.Generator, count: int) -> tuple[str, tuple[str, ...]]:
        chosen = random.choice(len(self.words), size=min(count, len(self.words)), replace=False)
        cue = self.cues[int(random.integers(len(self.cues)))]
        return cue, tuple(self.words[word] for word in chosen)

    def _values(self, cue: str, labels: tuple[str, ...]) -> Tensor:
        """Give the labels' values on the bare target, read on a few texts, the same for every step."""
        rows = torch.arange(min(8, len(self.material.texts)))
        asked = ask(self.target, questions(self.material, cue, labels, rows), truncate=True)
        return values(asked, self.generator.card.writers[-1]).to(self.target.device)


def view(
    material: Material,
    one: Capability,
    shown: Tensor,
    *,
    wrong: float = 0.0,
    random: np.random.Generator | None = None,
) -> Tensor:
    """Give the directions that a source's fingerprint of a capability carries, `[label, place + 1]` float64.

    Args:
        material: the material.
        one: the capability.
        shown: which of the capability's texts are probes.
        wrong: share of answers turned wrong.
        random: draws the wrong ones.
    """
    answers = one.answers[shown].clone()
    if wrong and random is not None:
        turned = torch.from_numpy(random.random(len(answers)) < wrong)
        other = torch.from_numpy(random.integers(len(one.labels), size=len(answers)))
        answers = torch.where(turned, other, answers)
    scores = 20.0 * functional.one_hot(answers, len(one.labels)).float()
    return prototypes(material.places[one.rows[shown]], scores)


def says(target: Model, cue: str, labels: tuple[str, ...]) -> bool:
    """Tell whether a target has words for labels that it can tell apart."""
    try:
        make_readout(target, labels, cue)
    except TaskError:
        return False
    return True


def questions(material: Material, cue: str, labels: tuple[str, ...], rows: Tensor) -> Goal:
    """Ask for nothing: a goal that holds texts, cue and labels."""
    texts = tuple(material.texts[row] for row in rows.tolist())
    return Goal(texts, cue, labels, torch.zeros(len(texts), len(labels)))
