"""When a trained extractor may be the default: a function of measured fingerprints, and of nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import silhouette_score
from torch import Tensor
from torch.nn import functional

from umaf.errors import FingerprintError
from umaf.training.entries import EntryCard

ADDITIVE = 0.8
TIE = 1e-6


@dataclass(frozen=True)
class Verdict:
    """What the test found.

    Attributes:
        top1: share of entries of the left-out architectures whose nearest entry elsewhere is of their capability.
        top5: the same among the nearest five.
        rival: top1 of the closed-form extractor on the same entries.
        capability: silhouette of the fingerprints by capability.
        architecture: silhouette by architecture.
        additive: mean cosine of f(a + b) and f(a) + f(b).
        accepted: whether all three conditions hold.
        reasons: the conditions that do not, in words.
    """

    top1: float
    top5: float
    rival: float
    capability: float
    architecture: float
    additive: float
    accepted: bool
    reasons: tuple[str, ...]


def verdict(
    vectors: Tensor, rival: Tensor, cards: Sequence[EntryCard], *, together: Tensor, parts: Tensor
) -> Verdict:
    """Judge a trained extractor by its fingerprints of architectures that it was not trained on.

    Each architecture has to be left out of a training of its own, whose extractor then makes the fingerprints of that
    architecture and of the others it is compared with; rows of all these trainings may stand below each other.

    Args:
        vectors: `[entry, 512]` of the trained extractor.
        rival: `[entry, 512]` of the closed-form one.
        cards: where the entries come from.
        together: `[pair, 512]`, trained fingerprints of two capabilities at once.
        parts: `[pair, 2, 512]`, of each alone.

    Returns:
        The verdict.

    Raises:
        FingerprintError: fewer than two capabilities or architectures.
    """
    own, other = retrieval(vectors, cards), retrieval(rival, cards)
    capability, architecture = silhouettes(vectors, cards)
    additive = float(functional.cosine_similarity(together, parts.sum(1), dim=-1).mean())
    conditions = {
        f"retrieval {own['top1']:.2f} is not above that of the closed form, {other['top1']:.2f}": own["top1"]
        > other["top1"],
        f"silhouette by capability {capability:.2f} is not above that by architecture, {architecture:.2f}": capability
        > architecture,
        f"additivity {additive:.2f} is not above {ADDITIVE}": additive > ADDITIVE,
    }
    reasons = tuple(reason for reason, holds in conditions.items() if not holds)
    return Verdict(
        own["top1"], own["top5"], other["top1"], capability, architecture, additive, not reasons, reasons
    )


def retrieval(vectors: Tensor, cards: Sequence[EntryCard]) -> dict[str, float]:
    """Look each entry's capability up among the entries of other architectures.

    Args:
        vectors: `[entry, 512]`.
        cards: one per entry.

    Returns:
        "top1" and "top5": shares of those entries whose capability another architecture has too; a capability counts
        once among the five, however many entries it has.

    Raises:
        FingerprintError: no capability is there in two architectures.

    Example:
        >>> import torch
        >>> card = lambda what, kind: EntryCard(what, "train", kind, kind, 1, 1, 1, 0)
        >>> cards = [card("a", "x"), card("b", "x"), card("a", "y"), card("b", "y")]
        >>> retrieval(torch.eye(2)[[0, 1, 0, 1]], cards)["top1"]
        1.0
    """
    unit = functional.normalize(vectors.double(), dim=1)
    cosines = (unit @ unit.T).numpy()
    ranks = []
    for at, card in enumerate(cards):
        best: dict[str, float] = {}
        for other, seen in enumerate(cards):
            if seen.architecture != card.architecture:
                best[seen.capability] = max(best.get(seen.capability, -2.0), cosines[at, other])
        if card.capability in best:
            own = best.pop(card.capability)
            # A tie is no find, or fingerprints that are all the same would find everything.
            ranks.append(sum(value >= own - TIE for value in best.values()))
    if not ranks:
        raise FingerprintError(
            "retrieval across architectures needs capabilities that two of them have, and found none; add experts."
        )
    return {"top1": float(np.mean([r < 1 for r in ranks])), "top5": float(np.mean([r < 5 for r in ranks]))}


def silhouettes(vectors: Tensor, cards: Sequence[EntryCard]) -> tuple[float, float]:
    """Give the silhouettes of fingerprints by capability and by architecture, of cosine distances, in [-1, 1].

    Raises:
        FingerprintError: fewer than two of either, or every entry alone in its group.
    """
    found = []
    for groups in ([card.capability for card in cards], [card.architecture for card in cards]):
        if not 2 <= len(set(groups)) < len(groups):
            raise FingerprintError(
                f"a silhouette needs two groups or more with entries in common, got {len(set(groups))} for "
                f"{len(groups)} entries; add experts."
            )
        found.append(float(silhouette_score(vectors.double().numpy(), groups, metric="cosine")))
    return found[0], found[1]
