"""The Input Processor: what an extractor reads, the same shape for every model.

A text's coordinates are its similarities to the anchors inside one model. Where the model's base is
known, its coordinates of the same texts stand beside them, and the difference is what the expert
learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from umaf.activations import ANCHORS, DEPTHS, capture, relative, too_long
from umaf.errors import FingerprintError, ProbeError
from umaf.extraction.answers import Answers
from umaf.extraction.behaviour import behaviour
from umaf.extraction.read_once import read_once
from umaf.models import Model

# Cosines of float32 activations repeat to about 1e-6, and less than ten times that is no change.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Reading:
    """How a model is read.

    Attributes:
        normalisation: a registered name; see `umaf.activations.normalise`.
        depths: layers as shares of the stack, in (0, 1].
        batch_size: texts per pass.
        truncate: cut probes longer than the window instead of refusing them.
        behaviour: also read how likely the anchor texts are.
    """

    normalisation: str = "centred"
    depths: tuple[float, ...] = DEPTHS
    batch_size: int = 32
    truncate: bool = False
    behaviour: bool = False


@dataclass(frozen=True)
class Inputs:
    """Coordinates of probes and of the anchors themselves, float32.

    Attributes:
        coordinates: `[depth, probe, anchor]`.
        gram: `[depth, anchor, anchor]`, the anchors' coordinates.
        base_coordinates: as `coordinates`, inside the base; None where no base is known.
        base_gram: as `gram`, inside the base.
        depths: the depths read.
        normalisation: the normalisation used.
        behaviour: `[2, anchor]`, see `umaf.extraction.behaviour`; None where it was not read or cannot be.
        places: `[probe, place]`, the probes in the universal space; None where no extractor asked for them.
        answers: what the model answers to the probes; None where nobody asked.
    """

    coordinates: Tensor
    gram: Tensor
    base_coordinates: Tensor | None
    base_gram: Tensor | None
    depths: tuple[float, ...]
    normalisation: str
    behaviour: Tensor | None = None
    places: Tensor | None = None
    answers: Answers | None = None

    @property
    def difference(self) -> bool:
        """Whether a base is known, so that the inputs tell what was learned."""
        return self.base_coordinates is not None

    def shift(self) -> Tensor:
        """Return the coordinates minus the base's `[depth, probe, anchor]`, or as they are without a base."""
        return self.coordinates if self.base_coordinates is None else self.coordinates - self.base_coordinates

    def check(self, depths: tuple[float, ...], normalisation: str) -> None:
        """Stop where a trained extractor reads other inputs than these.

        Raises:
            FingerprintError: other depths, or another normalisation.
        """
        for what, own in (("depths", depths), ("normalisation", normalisation)):
            given = getattr(self, what)
            if own != given:
                raise FingerprintError(
                    f"this trained extractor reads {what} {own}, and the inputs were made with {given}; extract with "
                    f"{what}={own!r}."
                )

    def unchanged(self) -> bool:
        """Whether model and base agree on every probe and anchor but for rounding."""
        if self.base_gram is None:
            return False
        largest = max(float(self.shift().abs().max()), float((self.gram - self.base_gram).abs().max()))
        return largest <= ROUNDING * max(1.0, float(self.gram.abs().max()))


def read_inputs(
    model: Model, probes: Sequence[str], *, base: Model | None = None, reading: Reading | None = None
) -> Inputs:
    """Read a model, and its base, on probes and anchors.

    Args:
        model: the model to read.
        probes: checked probe texts.
        base: the model it was fine-tuned from.
        reading: how to read; the defaults of `Reading`.

    Returns:
        The inputs of an extractor.

    Raises:
        ProbeError: probes or anchors that do not fit the window.
        NumericalError: NaN or infinity on the way.
        RegistryError: no such normalisation.
    """
    how = reading or Reading()
    coordinates, gram = _read(model, probes, how)
    base_coordinates, base_gram = None, None
    if base is not None:
        known = ("inputs", tuple(probes), how)
        base_coordinates, base_gram = read_once(base, known, lambda: _read(base, probes, how))
    behaved = behaviour(model, base) if how.behaviour else None
    return Inputs(
        coordinates, gram, base_coordinates, base_gram, tuple(how.depths), how.normalisation, behaved
    )


def unread(reading: Reading) -> Inputs:
    """Give the inputs of an extractor that reads no activations."""
    nothing = torch.zeros(0, 0, 0)
    return Inputs(nothing, nothing, None, None, tuple(reading.depths), reading.normalisation)


def tokens(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Arrange inputs as the set of tokens that the Transformer Encoder reads.

    With a base a token is [own - base, base]; without one it is [own, own]. A behavioural token, where there is one,
    comes last and is numbered as the depth behind the last.

    Args:
        inputs: from `read_inputs`.

    Returns:
        Tokens `[token, 2 * anchor]` and the number of each token's depth `[token]`; tokens are depth by depth, and
        probe by probe within a depth.
    """
    base = inputs.coordinates if inputs.base_coordinates is None else inputs.base_coordinates
    both = torch.cat([inputs.shift(), base], dim=-1)
    depths, probes, width = both.shape
    rows, numbers = both.reshape(-1, width), torch.arange(depths).repeat_interleave(probes)
    if inputs.behaviour is None:
        return rows, numbers
    return torch.cat([rows, inputs.behaviour.reshape(1, -1)]), torch.cat([numbers, torch.tensor([depths])])


def _read(model: Model, probes: Sequence[str], how: Reading) -> tuple[Tensor, Tensor]:
    if too_long(model, ANCHORS):
        raise ProbeError(
            f"{model.name} reads {model.window} tokens at once and the anchor texts need more, so its coordinates "
            f"would not mean what those of other models mean; use a model with a longer window."
        )
    # Probes first: an error about a text then gives its number among the probes.
    texts = [*probes, *ANCHORS]
    activations = capture(model, texts, depths=how.depths, batch_size=how.batch_size, truncate=how.truncate)
    both = relative(activations, activations[:, len(probes) :], normalisation=how.normalisation)
    return both[:, : len(probes)], both[:, len(probes) :]
