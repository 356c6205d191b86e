"""Fingerprints of a bank's entries, and what interpolators and gates learn from among them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

from umaf.activations import ANCHORS_HASH
from umaf.extraction import Fingerprint, FingerprintCard, open_extractor
from umaf.extraction.extractor import Extractor
from umaf.scaling import size_of
from umaf.training.entries import Entry, load_entries
from umaf.training.interpolator import Pair

Known = list[tuple[Entry, Fingerprint]]


def read_bank(
    folder: str | Path, extractor: str, *, splits: Sequence[str] = ("train", "validation")
) -> Known:
    """Fingerprint every entry of a bank with one extractor.

    Args:
        folder: where the entries are.
        extractor: as `open_extractor` takes it, but none that reads answers.
        splits: which capabilities.

    Returns:
        Entries with their fingerprints; those whose expert changed nothing are left out.

    Raises:
        TaskError: no entries. FingerprintError: no such extractor, or one that reads answers.
    """
    compute = open_extractor(extractor)
    made = [(entry, fingerprint_of(entry, compute)) for entry in load_entries(folder, splits=splits)]
    return [(entry, one) for entry, one in made if not one.card.unchanged]


def fingerprint_of(entry: Entry, compute: Extractor) -> Fingerprint:
    """Fingerprint one entry as `extract` would its expert."""
    vector, card = compute(entry.inputs).double(), entry.card
    strength = float(vector.norm())
    about = FingerprintCard(
        model=f"{card.base} {card.capability} {card.seed}",
        base=card.base,
        architecture=card.architecture,
        parameters=card.parameters,
        layers=card.layers,
        width=card.width,
        tokenizer="",
        probes="",
        probe_count=entry.inputs.coordinates.shape[1],
        truncated=0,
        anchors=ANCHORS_HASH,
        extractor=compute.version,
        normalisation=entry.inputs.normalisation,
        depths=entry.inputs.depths,
        strength=strength,
        unchanged=strength == 0,
    )
    return Fingerprint((vector / strength if strength > 0 else vector).float(), about)


def pairs_of(known: Known, split: str) -> list[Pair]:
    """Pair the fingerprints of each capability of a split at two sizes, both ways."""
    groups = _groups(known, split)
    return [
        Pair(name, one, other)
        for name, group in groups.items()
        for one, other in permutations(group, 2)
        if not size_of(one).same_shape(size_of(other))
    ]


def shown_of(known: Known, split: str) -> list[tuple[str, Fingerprint]]:
    """List the fingerprints of a split with their capabilities."""
    return [(name, one) for name, group in _groups(known, split).items() for one in group]


def _groups(known: Known, split: str) -> dict[str, list[Fingerprint]]:
    found: dict[str, list[Fingerprint]] = {}
    for entry, fingerprint in known:
        if entry.card.split == split:
            found.setdefault(entry.card.capability, []).append(fingerprint)
    return found
