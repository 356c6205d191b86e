"""Fit the linear extractor on a bank's entries: closed form, in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from umaf.errors import TaskError
from umaf.extraction import Linear, anchor_map, fit_linear, load_universal, movement
from umaf.training.accept import retrieval
from umaf.training.entries import Entry


@dataclass(frozen=True)
class Fitted:
    """What a fit gave.

    Attributes:
        extractor: fitted on the train capabilities.
        top1: share of validation entries whose nearest entry of another architecture is of their capability; None
            where no validation capability is there in two architectures.
        top5: the same among the nearest five capabilities.
        entries: how many it was fitted on.
    """

    extractor: Linear
    top1: float | None
    top5: float | None
    entries: int


def train_linear(entries: Sequence[Entry], *, strength: float = 50.0) -> Fitted:
    """Fit the linear extractor.

    Args:
        entries: of train and validation capabilities; held-out ones are refused.
        strength: by how much the models' own directions are shrunk, see `umaf.extraction.fit_linear`.

    Returns:
        The extractor and how well it finds validation capabilities in other architectures than their own.

    Raises:
        TaskError: a held-out entry, none to train on, or entries without places.
        NumericalError: too few capabilities that two models have.
    """
    held = [entry for entry in entries if entry.card.split == "heldout"]
    bare = [entry for entry in entries if entry.inputs.places is None]
    if held or bare:
        first = (held or bare)[0].card.capability
        why = "is held out; leave it out" if held else "was read without places; make its entries again"
        raise TaskError(f"An extractor was to be trained on {first!r}, which {why}.")
    known = [entry for entry in entries if entry.card.split == "train"]
    watched = [entry for entry in entries if entry.card.split == "validation"]
    if not known:
        raise TaskError("An extractor needs train capabilities, and none was given; add some.")
    space = load_universal()
    anchors = anchor_map(space)
    first = known[0].inputs
    extractor = fit_linear(
        [movement(_places(entry), entry.inputs.shift(), anchors) for entry in known],
        [entry.card.capability for entry in known],
        space=space,
        anchors=anchors,
        strength=strength,
        depths=first.depths,
        normalisation=first.normalisation,
    )
    kinds: dict[str, set[str]] = {}
    for entry in watched:
        kinds.setdefault(entry.card.capability, set()).add(entry.card.architecture)
    if max(map(len, kinds.values()), default=0) < 2:
        return Fitted(extractor, None, None, len(known))
    vectors = torch.cat([extractor(entry.inputs) for entry in watched])
    found = retrieval(vectors, [entry.card for entry in watched])
    return Fitted(extractor, found["top1"], found["top5"], len(known))


def _places(entry: Entry) -> torch.Tensor:
    places = entry.inputs.places
    if places is None:
        raise TaskError(f"The entry of {entry.card.capability!r} was read without places; make it again.")
    return places
