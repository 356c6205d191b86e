"""The size of a model, as far as scaling looks at it."""

from __future__ import annotations

from dataclasses import dataclass

from umaf.extraction import Fingerprint, FingerprintCard
from umaf.models import Model


@dataclass(frozen=True)
class Size:
    """Architecture and dimensions.

    Attributes:
        architecture: `config.model_type`.
        parameters: number of parameters.
        layers: layers of the stack that reads text.
        width: size of the hidden states.
    """

    architecture: str
    parameters: int
    layers: int
    width: int

    def __str__(self) -> str:
        return f"{self.architecture} with {self.layers} layers of width {self.width}"

    def same_shape(self, other: Size) -> bool:
        """Whether both have the same architecture, depth and width; heads and vocabularies may differ."""
        return (self.architecture, self.layers, self.width) == (other.architecture, other.layers, other.width)


def size_of(thing: Model | FingerprintCard | Fingerprint) -> Size:
    """Return the size of a model, or of the model a card or fingerprint tells about."""
    if isinstance(thing, Model):
        return Size(str(thing.config.model_type), thing.parameters, thing.layers, thing.width)
    card = thing.card if isinstance(thing, Fingerprint) else thing
    return Size(card.architecture, card.parameters, card.layers, card.width)
