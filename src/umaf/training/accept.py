"""When a trained extractor may be the default: a function of measured fingerprints, and of nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
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


@dataclass(frozen=True)
class Fold:
    """One architecture left out of a training, and what the extractor that came of it makes of everybody.

    Where capabilities are held out, those alone are looked up and clustered, among the entries of all.

    Attributes:
        left_out: the architecture that was not trained on, by `config.model_type`.
        vectors: `[entry, 512]` of the trained extractor.
        rival: `[entry, 512]` of the closed-form one.
        cards: where the entries come from.
        together: `[pair, 512]`, trained fingerprints of two capabilities at once in models of that architecture.
        parts: `[pair, 2, 512]`, of each alone.
    """

    left_out: str
    vectors: Tensor
    rival: Tensor
    cards: Sequence[EntryCard]
    together: Tensor
    parts: Tensor


def verdict(folds: Sequence[Fold]) -> Verdict:
    """Judge a trained extractor by its fingerprints of architectures that it was not trained on.

    Args:
        folds: one for each architecture that was left out; what is looked up are entries of that one, and fingerprints
            of different trainings are never compared.

    Returns:
        The verdict, every number a mean over what was looked up, over folds, or over pairs.

    Raises:
        FingerprintError: no folds, or fewer than two capabilities or architectures.
    """
    if not folds:
        raise FingerprintError(
            "a trained extractor is judged by architectures left out, and none was; leave one."
        )
    own, other = (
        _pooled([ranks(rows, fold.cards, of=fold.left_out) for rows, fold in zip(tables, folds, strict=True)])
        for tables in ([fold.vectors for fold in folds], [fold.rival for fold in folds])
    )
    shown = [(fold, _judged(fold.cards)) for fold in folds]
    both = [silhouettes(fold.vectors[rows], [fold.cards[at] for at in rows]) for fold, rows in shown]
    capability, architecture = (float(np.mean(values)) for values in zip(*both, strict=True))
    pairs = [functional.cosine_similarity(fold.together, fold.parts.sum(1), dim=-1) for fold in folds]
    additive = float(torch.cat(pairs).mean())
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


def retrieval(vectors: Tensor, cards: Sequence[EntryCard], *, of: str | None = None) -> dict[str, float]:
    """Look each entry's capability up among the entries of other architectures.

    Args:
        vectors: `[entry, 512]`.
        cards: one per entry.
        of: the architecture whose entries are looked up; all when None.

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
    return _pooled([ranks(vectors, cards, of=of)])


def ranks(vectors: Tensor, cards: Sequence[EntryCard], *, of: str | None = None) -> dict[int, int]:
    """Count, for each entry that is looked up, the capabilities of other architectures that are as near as its own.

    Args:
        vectors: `[entry, 512]`.
        cards: one per entry.
        of: the architecture whose entries are looked up; all when None.

    Returns:
        The count by the entry's number: 0 is a find. Entries whose capability no other architecture has are left out,
        and where capabilities are held out, so are all others.
    """
    unit = functional.normalize(vectors.double(), dim=1)
    cosines = (unit @ unit.T).numpy()
    found = {}
    for at in _judged(cards):
        card = cards[at]
        if of not in (None, card.architecture):
            continue
        best: dict[str, float] = {}
        for other, seen in enumerate(cards):
            if seen.architecture != card.architecture:
                best[seen.capability] = max(best.get(seen.capability, -2.0), cosines[at, other])
        if card.capability in best:
            own = best.pop(card.capability)
            # A tie is no find, or fingerprints that are all the same would find everything.
            found[at] = sum(value >= own - TIE for value in best.values())
    return found


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


def _pooled(counts: Sequence[dict[int, int]]) -> dict[str, float]:
    all_ranks = [rank for found in counts for rank in found.values()]
    if not all_ranks:
        raise FingerprintError(
            "retrieval across architectures needs capabilities that two of them have, and found none; add experts."
        )
    return {
        "top1": float(np.mean([r < 1 for r in all_ranks])),
        "top5": float(np.mean([r < 5 for r in all_ranks])),
    }


def _judged(cards: Sequence[EntryCard]) -> list[int]:
    """Number the entries of held-out capabilities, or all where none is."""
    held = [at for at, card in enumerate(cards) if card.split == "heldout"]
    return held or list(range(len(cards)))
