"""What makes the fingerprints of a store comparable: one extractor, one set of probes, one way of reading."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from umaf.activations import ANCHORS_HASH, DEPTHS, check_probes
from umaf.errors import StoreError
from umaf.extraction import FingerprintCard, open_extractor
from umaf.tasks.door import load_task
from umaf.tasks.generated import FUNCTIONS, KINDS

# Of each generated classification, and of each generated function.
SHARE = (8, 4)
CUE = "answer"


class Space(BaseModel):
    """The settings that every fingerprint of a store shares; fixed when the store is made.

    Attributes:
        extractor: version of the extractor.
        asked: how the extractor is opened, such as "pca" or "pca:FILE".
        anchors: hash of the anchor texts.
        normalisation: of the activations.
        depths: layers read, as shares of the stack.
        probes: hash of the probe texts.
        texts: the probe texts.
        cue: the word that answers to the probes are asked with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    extractor: str
    asked: str
    anchors: str
    normalisation: str
    depths: tuple[float, ...]
    probes: str
    texts: tuple[str, ...]
    cue: str = CUE


def make_space(
    texts: Sequence[str] | None = None, *, extractor: str = "answers", normalisation: str = "centred"
) -> Space:
    """Choose the settings of a new store.

    Args:
        texts: probe texts, at least 16; the default ones when not given.
        extractor: as `umaf.extraction.open_extractor` takes it.
        normalisation: of the activations.

    Raises:
        ProbeError: probes that are too few, empty or repeated.
        FingerprintError: no such extractor.

    Example:
        >>> make_space([f"text number {n}" for n in range(16)]).normalisation
        'centred'
    """
    probes = check_probes(default_probes() if texts is None else texts)
    return Space(
        extractor=open_extractor(extractor).version,
        asked=extractor,
        anchors=ANCHORS_HASH,
        normalisation=normalisation,
        depths=tuple(DEPTHS),
        probes=probes.hash,
        texts=tuple(probes.texts),
    )


def default_probes() -> tuple[str, ...]:
    """Give texts on which many capabilities show: a few of every generated task, none of which trains anything.

    Example:
        >>> len(default_probes())
        132
    """
    names = [(f"made/{name}", SHARE[0]) for name in KINDS] + [
        (f"made/{name}", SHARE[1]) for name in FUNCTIONS
    ]
    texts = [example.text for name, share in names for example in load_task(name).validation[:share]]
    return tuple(dict.fromkeys(texts))


def check_space(card: FingerprintCard, space: Space) -> None:
    """Stop where a fingerprint does not belong into a store.

    Raises:
        StoreError: another extractor, anchors, normalisation, depths or probes; the message says which.
    """
    for name in ("extractor", "probes", "anchors", "normalisation", "depths"):
        own, wanted = getattr(card, name), getattr(space, name)
        if own != wanted:
            raise StoreError(
                f"The fingerprint of {card.model} was made with {name} {_short(own)}, and this store holds those made "
                f"with {_short(wanted)}; make it again with the store's {name}, or keep it in a store of its own."
            )


def same_space(asked: Space, kept: Space) -> None:
    """Stop where a store is asked to hold fingerprints made in another way than its own.

    Raises:
        StoreError: names what differs.
    """
    for name in ("extractor", "probes", "anchors", "normalisation", "depths", "cue"):
        own, wanted = getattr(asked, name), getattr(kept, name)
        if own != wanted:
            raise StoreError(
                f"The store was asked to take {name} {_short(own)}, and holds fingerprints made with {_short(wanted)}; "
                f"leave the option out to use the store's own, or build another store."
            )


def pack(space: Space) -> str:
    """Write a space as JSON."""
    return space.model_dump_json()


def unpack(text: str, place: str) -> Space:
    """Read what `pack` wrote.

    Raises:
        StoreError: something else.
    """
    try:
        return Space.model_validate(json.loads(text))
    except ValueError:
        raise StoreError(
            f"The store {place} was written by another version of umaf and cannot be read; build it again."
        ) from None


def _short(value: object) -> str:
    return value[:24] if isinstance(value, str) else str(value)
