"""What a model answers to a store's probes, read once, and both of its vectors from that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from umaf.activations import check_probes
from umaf.errors import TaskError
from umaf.extraction import (
    Answered,
    Answers,
    Fingerprint,
    arranged,
    card_of,
    check_base,
    fingerprint_of,
    meant,
)
from umaf.extraction.inputs import Reading
from umaf.index.answers import answers_of, knowledge
from umaf.index.space import Space
from umaf.models import Model
from umaf.readout import label_scores


@dataclass(frozen=True)
class Ask:
    """One capability of a model, as its card tells it: how it is asked, and what it can say.

    Attributes:
        cue: the word before the answer.
        labels: label words, two or more.
    """

    cue: str
    labels: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Give cue and word of each label.

        Example:
            >>> Ask("tone", ("good", "bad")).names
            ('tone: good', 'tone: bad')
        """
        return tuple(f"{self.cue}: {label}" for label in self.labels)


def asks_of(model: Model, told: Sequence[Ask], cue: str) -> tuple[Ask, ...]:
    """Give what a model can be asked: what its card says, else the classes of a classifier that have names."""
    if told:
        return tuple(told)
    named = len(model.labels) > 1 and not any(label.startswith("LABEL_") for label in model.labels)
    return (Ask(cue, tuple(model.labels)),) if named else ()


def read_told(
    model: Model,
    space: Space,
    compute: Answered,
    *,
    told: Sequence[Ask] = (),
    base: Model | None = None,
    unchanged: bool = False,
) -> tuple[Fingerprint, Tensor]:
    """Ask a model the probes of a store: its fingerprint and its knowledge vector.

    A model with label words is read for these alone. Any other is read for its whole vocabulary, beside its base
    where one is known.

    Args:
        model: an opened model.
        space: of the store.
        compute: its extractor, opened.
        told: what the model's card says it can be asked.
        base: the model it was fine-tuned from.
        unchanged: whether it is its base; the fingerprint is 0 then.

    Raises:
        TaskError: labels that the model cannot be read for.
        ModelError: a base that is not the model's.
    """
    probes, asked = check_probes(space.texts), asks_of(model, told, space.cue)
    places = compute.space.places(probes.texts)
    if base is not None:
        check_base(model, base)
    if asked:
        found = [_answers(model, probes.texts, one) for one in asked]
        vector = meant(places, found)
        known = knowledge(torch.cat([one.scores.softmax(-1) for one in found], dim=1))
    else:
        shares = answers_of(model, probes.texts, space.cue)
        rows = shares.double().sqrt()
        if base is not None:
            before = _base_answers(base, probes.texts, space.cue)
            rows = rows - before.double().sqrt() if before.shape == shares.shape else rows
        vector, known = arranged(places, rows), knowledge(shares)
    reading = Reading(space.normalisation, space.depths)
    card = card_of(model, probes, base=base, version=compute.version, reading=reading, unchanged=unchanged)
    card = replace(card, words=tuple(name for one in asked for name in one.names))
    return fingerprint_of(torch.zeros_like(vector) if unchanged else vector, card), known


def _answers(model: Model, texts: Sequence[str], ask: Ask) -> Answers:
    own = {label.casefold() for label in model.labels}
    if own and own != {label.casefold() for label in ask.labels}:
        if len(own) != len(ask.labels):
            raise TaskError(
                f"The card of {model.name} names the labels {', '.join(ask.labels)}, but its classes are "
                f"{', '.join(model.labels)}; name as many."
            )
        # Words for the classes, in their order.
        return Answers(ask.cue, ask.labels, label_scores(model, texts, (), ask.cue, truncate=True))
    return Answers(ask.cue, ask.labels, label_scores(model, texts, ask.labels, ask.cue, truncate=True))


@lru_cache(maxsize=8)
def _base_answers(base: Model, texts: tuple[str, ...], cue: str) -> Tensor:
    """Read a base once for all its experts; bases are kept open, so the model itself is the key."""
    return answers_of(base, texts, cue)
