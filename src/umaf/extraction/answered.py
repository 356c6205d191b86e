"""The answers extractor: what a model says to probes that are the same for every model.

In a store nobody asks each model on texts of its own. All models answer the same probes, and their answers are told as
functions of where the probes lie in the universal space, which one reader gives for all. So nothing of a model's own
geometry gets in, and models of any architecture and size meet.

A model whose label words are known gets one direction per label, as in `umaf.extraction.bound`, bound to the word alone
and, weaker, to cue and word, so that a query which knows only words finds it. Each direction carries one number more
that is always 1: that the label is there at all. Answers are brought to one mean per label and one spread per model
first, because how sure a model is, and which label it prefers, differ between architectures more than what it means.

A model without label words gets the arrangement of its answers: which directions of the space it answers differently
along. It is a matrix `[place, place]`, whatever its vocabulary, folded into the same 512 numbers.

What else was tried is told in `docs/concepts/search.md`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from umaf.errors import FingerprintError
from umaf.extraction.answers import Answers
from umaf.extraction.binding import code
from umaf.extraction.bound import along, prototypes
from umaf.extraction.inputs import Inputs
from umaf.extraction.universal import Universal, load_universal

STRENGTH = 1.0
THERE, CUED = 1.0, 0.5


@dataclass(frozen=True)
class Answered:
    """An extractor of answers to common probes.

    Attributes:
        space: the universal space the probes are read in.
    """

    space: Universal

    @property
    def version(self) -> str:
        """Name and hash of everything that decides the numbers."""
        told = f"2 {STRENGTH} {THERE} {CUED} {self.space.version}"
        return f"answers-{hashlib.sha256(told.encode()).hexdigest()[:12]}"

    def __call__(self, inputs: Inputs) -> Tensor:
        """Map inputs to `[1, 512]` float64.

        Raises:
            FingerprintError: the inputs carry no places, or no answers with labels.
        """
        if inputs.places is None or inputs.answers is None or not inputs.answers.labels:
            raise FingerprintError(
                "the answers extractor reads what a model answers to its probes, and was given no answers; name the "
                'labels, or use the extractor "pca".'
            )
        return meant(inputs.places, [inputs.answers])[None]


def meant(places: Float[Tensor, "probe place"], told: Sequence[Answers]) -> Float[Tensor, " fingerprint"]:
    """Bind what each label means, of one capability or of several, into 512 numbers.

    Args:
        places: where the probes lie.
        told: the model's answers to them, one for each of its capabilities, each with labels.

    Returns:
        `[512]` float64, the sum over the capabilities.

    Example:
        >>> at = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
        >>> scores = torch.tensor([[0.0, -9.0], [-9.0, 0.0], [-1.0, -1.0], [0.0, -2.0]])
        >>> whole = meant(at, [Answers("tone", ("good", "bad"), scores)])
        >>> swapped = meant(at, [Answers("tone", ("bad", "good"), scores.flip(1))])
        >>> bool(torch.allclose(whole, swapped))
        True
    """
    parts = [bind_labels(directions_of(places, one.scores), one.labels, one.cue) for one in told]
    return torch.stack(parts).sum(0)


def directions_of(
    places: Float[Tensor, "probe place"], scores: Float[Tensor, "probe label"]
) -> Float[Tensor, "label place+1"]:
    """Tell answers as directions of the space, as long as they explain them: 1 on average where they do so wholly.

    What a model answers to texts that it knows nothing about follows no direction, so little of a guess is kept.

    Example:
        >>> at = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> told = directions_of(at, torch.tensor([[0.0, -9.0], [-9.0, 0.0], [0.0, -9.0], [-9.0, 0.0]]))
        >>> noise = directions_of(at, torch.tensor([[0.0, -9.0], [0.0, -9.0], [-9.0, 0.0], [-9.0, 0.0]]))
        >>> round(float(told.norm(dim=1).mean()), 2), round(float(noise.norm(dim=1).mean()), 2)
        (1.0, 0.0)
    """
    rows = even(scores)
    found = prototypes(places, rows, strength=STRENGTH)
    wanted = rows.softmax(-1)
    wanted, fitted = wanted - wanted.mean(0), along(found, places)
    fitted = fitted - fitted.mean(0)
    alike = (wanted * fitted).sum() / (wanted.norm() * fitted.norm()).clamp_min(1e-12)
    return found * alike.clamp_min(0)


def bind_labels(
    directions: Float[Tensor, "label place+1"], labels: Sequence[str], cue: str | None = None
) -> Float[Tensor, " fingerprint"]:
    """Bind directions to their label words, and to cue and word where a cue is known; float64."""
    rows = torch.cat(
        [directions.double(), torch.full((len(directions), 1), THERE, dtype=torch.float64)], dim=1
    )
    total = torch.zeros(code("", rows.shape[1]).shape[0], dtype=torch.float64)
    for label, row in zip(labels, rows, strict=True):
        total += code(label, len(row)) @ row
        if cue:
            total += CUED * (code(f"{cue}: {label}", len(row)) @ row)
    return total


def arranged(
    places: Float[Tensor, "probe place"], rows: Float[Tensor, "probe word"]
) -> Float[Tensor, " fingerprint"]:
    """Say along which directions of the space a model answers differently, whatever its words.

    Args:
        places: where the probes lie.
        rows: what it answers, such as square roots of probabilities, or how far they moved since its base.

    Returns:
        `[512]` float64 of length 1, or 0 where every probe is answered alike.
    """
    x, y = places.double() - places.double().mean(0), rows.double() - rows.double().mean(0)
    gram = x.T @ x
    ridge = STRENGTH * gram.diagonal().mean().clamp_min(1e-12) * torch.eye(len(gram), dtype=gram.dtype)
    along = torch.linalg.solve(gram + ridge, x.T @ y)
    matrix = along @ along.T
    across, down = torch.triu_indices(*matrix.shape)
    values = torch.where(across == down, matrix[across, down], matrix[across, down] * 2**0.5)
    found = code("arrangement", len(values)) @ values
    length = found.norm()
    return found / length if float(length) > 1e-12 else torch.zeros_like(found)


def even(scores: Float[Tensor, "probe label"]) -> Float[Tensor, "probe label"]:
    """Bring answers to one mean per label and one spread per model; float64.

    Example:
        >>> even(torch.tensor([[0.0, -8.0], [0.0, -4.0]])).tolist()
        [[1.0, -1.0], [-1.0, 1.0]]
    """
    rows = scores.double() - scores.double().mean(1, keepdim=True)
    rows = rows - rows.mean(0)
    return rows / rows.square().mean().sqrt().clamp_min(1e-12)


def load_answered(place: str | Path | None = None) -> Answered:
    """Open an answers extractor: a folder with a universal space, its file, or the one that ships with umaf.

    Raises:
        FingerprintError: no space there.
    """
    return Answered(load_universal(place))
