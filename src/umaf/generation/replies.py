"""What sources say of their probes: the labels they are read for, and their answers, asked for once.

A transfer needs a source's answers up to three times: for its fingerprint, to see whether it differs from its base,
and for the goal. `Replies` keeps them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from umaf.errors import NumericalError, TaskError
from umaf.models import Model, bare, shape_hash, weights_hash
from umaf.readout import continuations, label_scores

if TYPE_CHECKING:
    from umaf.generation.sources import Source

# Log-probabilities of one model read twice differ by less than this.
ROUNDING = 1e-5


@dataclass
class Replies:
    """The answers of sources, each asked once, however often they are wanted.

    Attributes:
        batch_size: texts per pass.
        truncate: cut probes that are longer than a model's window.
    """

    batch_size: int = 64
    truncate: bool = False
    # With each answer its source, so that the model lives as long as its id stands for it.
    _kept: dict[tuple, tuple[Source, Tensor | tuple[str, ...]]] = field(default_factory=dict, repr=False)

    def scores(self, source: Source) -> Float[Tensor, "text label"]:
        """Give a source's log-probabilities of `labels_of`; see `read_labels`."""
        key = self._key(source)
        if key not in self._kept:
            found = read_labels(source, batch_size=self.batch_size, truncate=self.truncate)
            self._kept[key] = (source, found)
        return self._kept[key][1]  # type: ignore[return-value]

    def texts(self, source: Source) -> tuple[str, ...]:
        """Give what a source without labels writes after each probe."""
        key = self._key(source)
        if key not in self._kept:
            found = continuations(
                source.model, source.probes, source.cue, batch_size=self.batch_size, truncate=self.truncate
            )
            self._kept[key] = (source, tuple(found))
        return self._kept[key][1]  # type: ignore[return-value]

    def _key(self, source: Source) -> tuple:
        return id(source.model), source.probes, source.cue, labels_of(source)


def labels_of(source: Source) -> tuple[str, ...]:
    """Give the label words of a source; empty for a function.

    Raises:
        TaskError: labels that are not the classifier's, or classes without names.
    """
    own = source.model.labels
    if not own:
        if len(source.labels) == 1:
            raise TaskError(
                f'"{source.model.name}" was given the single label {source.labels[0]!r}; give two or more, or none for '
                "a function."
            )
        return source.labels
    if not source.labels:
        if all(label.startswith("LABEL_") for label in own):
            raise TaskError(
                f'The classes of "{source.model.name}" have no names ({", ".join(own)}); give a word for each in this '
                "order, as labels."
            )
        return own
    known = {label.casefold() for label in own}
    shared = sum(label.casefold() in known for label in source.labels)
    if len(source.labels) != len(own) or 0 < shared < len(own):
        raise TaskError(
            f'The labels {", ".join(source.labels)} were given for "{source.model.name}", whose classes are '
            f"{', '.join(own)}; give these, or one other word for each in this order."
        )
    return source.labels


def read_labels(
    source: Source, *, batch_size: int = 64, truncate: bool = False
) -> Float[Tensor, "text label"]:
    """Read a source's log-probabilities of `labels_of` on its probes.

    Raises:
        NumericalError: it answers with NaN or infinity.
    """
    model, labels = source.model, labels_of(source)
    known = {label.casefold() for label in model.labels}
    # A user's own words for classes stand in the order of the classes.
    asked = labels if not known or known == {label.casefold() for label in labels} else ()
    scores = label_scores(model, source.probes, asked, source.cue, batch_size=batch_size, truncate=truncate)
    if not torch.isfinite(scores).all():
        bad = int((~torch.isfinite(scores).all(-1)).sum())
        raise NumericalError(
            f'"{model.name}" answered {bad} of {len(scores)} probes with NaN or infinity; open it in float32, and '
            "check its weights."
        )
    return scores


def same_weights(model: Model, other: Model) -> bool:
    """Tell whether two opened models hold the same parameters."""
    # Shapes first: most pairs differ there, and no weight has to be read.
    return shape_hash(model) == shape_hash(other) and weights_hash(model) == weights_hash(other)


def nothing_to_move(source: Source, replies: Replies) -> bool:
    """Tell whether a source answers every probe like its own base.

    A base that was opened without the source's head cannot answer, and then the source has something to move.
    """
    base = source.base
    if base is None:
        return False
    if source.model.head == "base" and base.head != "base":
        base = Model(bare(base.net).base_model, base.tokenizer, base.name, base.family, "base")
    if base.head != source.model.head or base.labels != source.model.labels:
        return False
    if same_weights(source.model, base):
        return True
    labels = labels_of(source)
    few = replace(source, probes=source.probes[:16], labels=labels)
    for asked in (few, replace(source, labels=labels)):
        other = replace(asked, model=base)
        count = len(asked.probes)
        if labels:
            alike = bool(((replies.scores(source)[:count] - replies.scores(other)).abs() <= ROUNDING).all())
        else:
            alike = replies.texts(source)[:count] == replies.texts(other)
        if not alike:
            return False
    return True
