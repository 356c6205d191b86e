"""What a model answers to a store's probes, read once, and both of its vectors from that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
from umaf.extraction.read_once import read_once
from umaf.index.answers import answers_of, encode_probes, knowledge, read_answers
from umaf.index.space import Space
from umaf.models import Model
from umaf.readout import encoded_label_scores, make_readout, prepare

# Probes are short; of larger batches more is padding.
BATCH = 32


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
        both = [_answers(model, probes.texts, one) for one in asked]
        found, cut = [told for told, _ in both], max(cut for _, cut in both)
        vector = meant(places, found)
        known = knowledge(torch.cat([one.scores.softmax(-1) for one in found], dim=1))
    else:
        batch = encode_probes(model, probes.texts, space.cue)
        shares, cut = read_answers(model, batch), batch.cut
        rows = shares.double().sqrt()
        if base is not None:
            how = ("answers", tuple(probes.texts), space.cue)
            before = read_once(base, how, lambda: answers_of(base, probes.texts, space.cue))
            rows = rows - before.double().sqrt() if before.shape == shares.shape else rows
        vector, known = arranged(places, rows), knowledge(shares)
    reading = Reading(space.normalisation, space.depths)
    card = card_of(model, probes, base=base, version=compute.version, reading=reading, unchanged=unchanged)
    card = replace(card, words=tuple(name for one in asked for name in one.names), truncated=cut)
    return fingerprint_of(torch.zeros_like(vector) if unchanged else vector, card), known


def _answers(model: Model, texts: Sequence[str], ask: Ask) -> tuple[Answers, int]:
    """Ask one capability; how many texts were cut comes beside the answers."""
    own = {label.casefold() for label in model.labels}
    labels = ask.labels
    if own and own != {label.casefold() for label in labels}:
        if len(own) != len(labels):
            raise TaskError(
                f"The card of {model.name} names the labels {', '.join(labels)}, but its classes are "
                f"{', '.join(model.labels)}; name as many."
            )
        labels = ()  # words for the classes, in their order
    readout = make_readout(model, labels, ask.cue)
    batch = prepare(model, texts, readout, truncate=True)
    return Answers(
        ask.cue, ask.labels, encoded_label_scores(model, batch, readout, batch_size=BATCH)
    ), batch.cut
