"""Dispatch by prompt: the base itself says which of the shelf's names a request belongs to.

Transformer-squared asks the model to write a category and reads it from the text, and gives the base to what it cannot
read. Here every name, and "other", is scored as a continuation, so that nothing has to be read. The names and what they
are for stand before the request, as in Transformer-squared, and are read once.

What the scores mean is told by a few known requests of every expert, where there are such: a request goes to the expert
whose requests are answered alike (`umaf.dispatch.prototypes`). Without them, what the model would say after a text
without content is taken off, and the likeliest name is believed, which only a base that follows instructions deserves.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from umaf.dispatch.decision import OTHER, Decision, Dispatcher, chosen_by
from umaf.dispatch.dispatchers import Material
from umaf.dispatch.lead import Lead
from umaf.dispatch.naming import CONTENT_FREE, kinds_line, unbiased
from umaf.dispatch.prototypes import fit_prototypes, shares_of
from umaf.dispatch.shelf import Shelved

CUE = "kind"
KNOWN = 16
"""Known requests per expert that are used at most."""


def prompt(shelf: Shelved, material: Material) -> Dispatcher:
    """Make the dispatcher that asks the base.

    Args:
        shelf: the experts; a description in an expert's card is shown to the base.
        material: `mixed`, and `examples` by name, the first 16 of each: at least two for every expert, or they are
            left alone. Those under "other" make it a kind like the others; without them, what is unlike all known
            requests is other.

    Raises:
        TaskError: the base does not write.
        ProbeError: the names do not fit its window.
    """
    lead, names = Lead(shelf.model, kinds_line(shelf.names, shelf.descriptions)), (*shelf.names, OTHER)
    known = [material.examples.get(name, ())[:KNOWN] for name in names]
    if all(len(texts) > 1 for texts in known[:-1]):
        return _by_prototypes(shelf, lead, known if len(known[-1]) > 1 else known[:-1], mixed=material.mixed)
    taste, _ = lead.scores(CONTENT_FREE, names, CUE)

    def decide(texts: Sequence[str]) -> Decision:
        scores, cut = lead.scores(texts, names, CUE)
        shares = unbiased(scores, taste)
        return chosen_by(shelf.names, shares, mixed=material.mixed, why="the base", notes=_notes(cut))

    return decide


def _by_prototypes(shelf: Shelved, lead: Lead, known: Sequence[Sequence[str]], *, mixed: bool) -> Dispatcher:
    names = (*shelf.names, OTHER)
    said, _ = lead.token_scores([text for texts in known for text in texts], names, CUE)
    fitted = fit_prototypes(said.split([len(texts) for texts in known]))

    def decide(texts: Sequence[str]) -> Decision:
        scores, cut = lead.token_scores(texts, names, CUE)
        shares = shares_of(fitted, scores)
        if shares.shape[1] > len(names):  # known requests of other, and unlike all known ones: both are other
            shares = torch.cat([shares[:, : len(names) - 1], shares[:, len(names) - 1 :].sum(1, True)], 1)
        return chosen_by(shelf.names, shares, mixed=mixed, why="the base", notes=_notes(cut))

    return decide


def _notes(cut: Sequence[bool]) -> list[str]:
    return [", from the beginning of the request" if one else "" for one in cut]
