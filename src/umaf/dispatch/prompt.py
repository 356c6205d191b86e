"""Dispatch by prompt: the base itself says which of the shelf's names a request belongs to.

Transformer-squared asks the model to write a category and reads it from the text, and gives the base to what it cannot
read. Here every name, and "other", is scored as a continuation, so that nothing has to be read; what the model
would say after a text without content is taken off. The names and what they are for stand before the request, as in
Transformer-squared, and are read once.
"""

from __future__ import annotations

from collections.abc import Sequence

from umaf.dispatch.decision import OTHER, Decision, Dispatcher, chosen_by
from umaf.dispatch.dispatchers import Material
from umaf.dispatch.lead import Lead, naming_lead
from umaf.dispatch.naming import CONTENT_FREE, unbiased
from umaf.dispatch.shelf import Shelved

CUE = "kind"


def prompt(shelf: Shelved, material: Material) -> Dispatcher:
    """Make the dispatcher that asks the base.

    Args:
        shelf: the experts; a description in an expert's card is shown to the base.
        material: only `mixed` is used.

    Raises:
        TaskError: the base does not write.
        ProbeError: the names do not fit its window.
    """
    lead, names = Lead(shelf.model, naming_lead(shelf.names, shelf.descriptions)), (*shelf.names, OTHER)
    taste, _ = lead.scores(CONTENT_FREE, names, CUE)

    def decide(texts: Sequence[str]) -> Decision:
        scores, cut = lead.scores(texts, names, CUE)
        notes = [", from the beginning of the request" if one else "" for one in cut]
        shares = unbiased(scores, taste)
        return chosen_by(shelf.names, shares, mixed=material.mixed, why="the base", notes=notes)

    return decide
