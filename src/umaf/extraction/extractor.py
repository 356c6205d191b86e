"""Stage 1 in one call: a model and texts in, a fingerprint out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from umaf.activations import ANCHORS_HASH, DEPTHS, Probes, check_probes, too_long
from umaf.errors import FingerprintError
from umaf.extraction.answered import Answered, load_answered
from umaf.extraction.answers import Answers
from umaf.extraction.base import check_base
from umaf.extraction.bound import Bound, load_bound
from umaf.extraction.fingerprint import WIDTH, Fingerprint, FingerprintCard, tokenizer_hash, umaf_version
from umaf.extraction.inputs import Inputs, Reading, read_inputs, unread
from umaf.extraction.linear import Linear
from umaf.extraction.pca import default_pca, load_pca
from umaf.extraction.shipped import open_trained
from umaf.extraction.trained import Trained
from umaf.models import Model


class Extractor(Protocol):
    """What turns inputs into a fingerprint."""

    @property
    def version(self) -> str:
        """Name and hash of everything that decides the numbers."""
        ...

    def __call__(self, inputs: Inputs) -> Tensor:
        """Map inputs to `[1, 512]`."""
        ...


def extract(  # every argument is one the command line has too
    model: Model,
    probes: Probes | Sequence[str],
    *,
    base: Model | None = None,
    extractor: str = "pca",
    normalisation: str = "centred",
    depths: Sequence[float] = DEPTHS,
    batch_size: int = 32,
    truncate: bool = False,
    answers: Answers | None = None,
) -> Fingerprint:
    """Fingerprint a model: what it can do, as 512 numbers that any other model's can be compared with.

    With a base the fingerprint tells what the model learned since; without one it tells what the
    model is, of which a capability is a small part. The two kinds are not comparable.

    Args:
        model: an opened model.
        probes: texts on which the capability shows, at least 16, without labels.
        base: the model it was fine-tuned from.
        extractor: "pca"; "pca:FILE" for directions that `PCA.save` wrote; "trained", which ships with umaf and
            needs a base; "trained:FOLDER"; "bound" and "answers", each also with ":FOLDER" of another universal space.
        normalisation: of the activations; see `umaf.activations.normalise`.
        depths: layers to read as shares of the stack, in (0, 1].
        batch_size: texts per pass.
        truncate: cut probes longer than the window; the card counts them.
        answers: what the model answers to the probes; only "bound" and "answers" read them, and need them.

    Returns:
        The fingerprint, of length 1, or exactly 0 where model and base agree on every text.

    Raises:
        ProbeError: probes that are too few, empty, repeated or too long.
        ModelError: a base that is not this model's.
        NumericalError: NaN or infinity on the way.
        FingerprintError: no such extractor.

    Example:
        >>> from umaf.models import open_model  # doctest: +SKIP
        >>> expert, base = open_model("expert"), open_model("base")  # doctest: +SKIP
        >>> extract(expert, texts, base=base).vector.shape  # doctest: +SKIP
        torch.Size([1, 512])
    """
    checked = probes if isinstance(probes, Probes) else check_probes(probes)
    compute = open_extractor(extractor)
    if base is not None:
        check_base(model, base)
    reading = Reading(normalisation, tuple(depths), batch_size, truncate, _behaved(compute))
    if isinstance(compute, Answered):
        inputs = unread(reading)
    else:
        inputs = read_inputs(model, checked.texts, base=base, reading=reading)
    if isinstance(compute, Answered | Bound | Linear):
        inputs = replace(inputs, answers=answers, places=compute.space.places(checked.texts))
    vector = torch.zeros(1, WIDTH, dtype=torch.float64) if inputs.unchanged() else compute(inputs).double()
    card = card_of(
        model, checked, base=base, version=compute.version, reading=reading, unchanged=inputs.unchanged()
    )
    card = replace(card, truncated=len(too_long(model, checked.texts)))
    coordinates = inputs.shift()
    return fingerprint_of(vector, card, coordinates if coordinates.numel() else None)


def card_of(
    model: Model, probes: Probes, *, base: Model | None, version: str, reading: Reading, unchanged: bool
) -> FingerprintCard:
    """Say where a fingerprint comes from; who read the probes adds how many were cut, `fingerprint_of` its strength."""
    return FingerprintCard(
        model=model.name,
        base=None if base is None else base.name,
        architecture=str(model.config.model_type),
        parameters=model.parameters,
        layers=model.layers,
        width=model.width,
        tokenizer=tokenizer_hash(model),
        probes=probes.hash,
        probe_count=len(probes),
        truncated=0,
        anchors=ANCHORS_HASH,
        extractor=version,
        normalisation=reading.normalisation,
        depths=tuple(reading.depths),
        strength=0.0,
        unchanged=unchanged,
        umaf=umaf_version(),
    )


def fingerprint_of(vector: Tensor, card: FingerprintCard, coordinates: Tensor | None = None) -> Fingerprint:
    """Bring 512 numbers to length 1, and note on the card how long they were."""
    strength = float(vector.norm())
    unit = (vector / strength if strength > 0 else vector).float().reshape(1, WIDTH)
    return Fingerprint(unit, replace(card, strength=strength), coordinates)


def _behaved(compute: Extractor) -> bool:
    return isinstance(compute, Trained) and compute.behaviour


def open_extractor(name: str) -> Extractor:
    """Open an extractor by name.

    Args:
        name: "pca", "trained", "bound" or "answers", or one of them with ":" and a file or folder.

    Returns:
        The extractor.

    Raises:
        FingerprintError: another name, or nothing usable at the place named.

    Example:
        >>> open_extractor("pca").version.startswith("pca-")
        True
    """
    kind, _, place = name.partition(":")
    if name == "pca":
        return default_pca()
    if kind == "pca" and place:
        return load_pca(place)
    if kind == "trained":
        return open_trained(place or None)
    if kind == "bound":
        return load_bound(place or None)
    if kind == "answers":
        return load_answered(place or None)
    raise FingerprintError(
        f'no extractor is called "{name}"; use "pca", "trained", "bound" or "answers", or one of them with ":" '
        "and a file or folder."
    )
