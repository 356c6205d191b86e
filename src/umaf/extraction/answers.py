"""What a model answers to the probes: the part of a capability that activations alone do not say."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from umaf.errors import FingerprintError


@dataclass(frozen=True)
class Answers:
    """A model's own answers to its probes, without any label of the user's.

    Attributes:
        cue: the word before the answer.
        labels: label words, in the order of the columns; empty for a capability whose answers are free text.
        scores: log-probabilities `[probe, label]`; `[probe, 0]` without labels.
    """

    cue: str
    labels: tuple[str, ...]
    scores: Tensor

    def __post_init__(self) -> None:
        if self.scores.dim() != 2 or self.scores.shape[1] != len(self.labels):
            raise FingerprintError(
                f"answers need one column for each of {len(self.labels)} labels, got {list(self.scores.shape)}; score "
                "every probe with every label."
            )

    @property
    def words(self) -> tuple[str, ...]:
        """Give the names that the capability's parts are kept under, one per label; one without a label for none.

        Example:
            >>> import torch
            >>> Answers("topic", ("law", "art"), torch.zeros(3, 2)).words
            ('topic: law', 'topic: art')
        """
        return tuple(f"{self.cue}: {label}" for label in self.labels) or (f"{self.cue}:",)
