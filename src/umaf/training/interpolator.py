"""Train the Size Interpolator on the same capability at several sizes, and judge it against identity and ridge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from umaf import seeds
from umaf.errors import FingerprintError
from umaf.extraction import Fingerprint, comparable
from umaf.scaling import Film, ends, fit_ridge, size_of
from umaf.training.devices import Devices
from umaf.training.loop import Said, Trained, train
from umaf.training.settings import LoopSettings


class InterpolatorSettings(LoopSettings):
    """How an interpolator is trained.

    Attributes:
        pairs: drawn in a step.
        others: weight of the contrast with other capabilities, without which everything moves to one mean.
        temperature: of that contrast.

    Example:
        >>> InterpolatorSettings(steps=10).pairs
        64
    """

    steps: int = Field(default=400, ge=1)
    pairs: int = Field(default=64, ge=2)
    others: float = Field(default=0.5, ge=0)
    temperature: float = Field(default=0.1, gt=0)


@dataclass(frozen=True)
class Pair:
    """One capability at two sizes.

    Attributes:
        capability: its name.
        source: fingerprint at one size.
        target: fingerprint at the other.
    """

    capability: str
    source: Fingerprint
    target: Fingerprint


@dataclass(frozen=True)
class LeftOut:
    """Mean cosine to the right fingerprint of each way to scale, every capability left out once.

    Attributes:
        identity: as it is.
        ridge: the closed form.
        film: the network.
        accepted: whether the network is above both.
        pairs: how many were scored.
    """

    identity: float
    ridge: float
    film: float
    accepted: bool
    pairs: int


def train_interpolator(
    pairs: Sequence[Pair],
    watched: Sequence[Pair],
    *,
    settings: InterpolatorSettings,
    folder: Path | None = None,
    said: Said | None = None,
    devices: Devices | None = None,
) -> tuple[Film, Trained]:
    """Train an interpolator.

    Args:
        pairs: of train capabilities.
        watched: of other capabilities, which decide when to stop.
        settings: how.
        folder: where the state is kept, so that an interrupted training goes on.
        said: called after each step.
        devices: processes that share the work.

    Returns:
        The network in evaluation mode, and how it went.

    Raises:
        FingerprintError: no pairs, or fingerprints that do not lie in one space.
    """
    _check(pairs, watched)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.derive(settings.seed, "interpolator"))
        network = Film(pairs[0].source.card.extractor)
    x, y, sizes = _rows(pairs)
    seen = _rows(watched)

    def loss(step: int) -> Tensor:
        random = np.random.default_rng(seeds.derive(settings.seed, "interpolator", "step", step))
        rows = torch.from_numpy(random.permutation(len(x))[: settings.pairs])
        found = functional.normalize(network(x[rows], sizes[rows]), dim=1)
        wanted = functional.normalize(y[rows], dim=1)
        total = 1 - (found * wanted).sum(1).mean()
        if settings.others and len(rows) > 1:
            names = [pairs[row].capability for row in rows.tolist()]
            same = torch.tensor([[one == other for other in names] for one in names])
            scores = found @ wanted.T / settings.temperature
            # Another pair of the same capability is no contrast.
            scores = scores.masked_fill(same & ~torch.eye(len(rows), dtype=torch.bool), float("-inf"))
            total = total + settings.others * functional.cross_entropy(scores, torch.arange(len(rows)))
        return total

    def look() -> dict[str, float]:
        with torch.no_grad():
            return {"score": _cosine(network(seen[0], seen[2]), seen[1])}

    about = {"pairs": sorted(f"{p.capability} {p.source.card.model} {p.target.card.model}" for p in pairs)}
    done = train(
        dict(network.named_parameters()),
        loss,
        look,
        settings=settings,
        folder=folder,
        about=about,
        said=said,
        devices=devices,
    )
    return network.eval().requires_grad_(False), done


def left_out(pairs: Sequence[Pair], *, settings: InterpolatorSettings, strength: float = 1.0) -> LeftOut:
    """Compare the network with identity and ridge, leaving one capability out at a time.

    A ridge is fitted for every two sizes apart; the network sees them all. Of the capabilities that are left, every
    fifth decides when the network stops.

    Args:
        pairs: of at least three capabilities.
        settings: how the network is trained each time.
        strength: of the ridge.

    Returns:
        The scores, and whether the network may be the default.

    Raises:
        FingerprintError: fewer than three capabilities.
    """
    names = sorted({pair.capability for pair in pairs})
    if len(names) < 3:
        raise FingerprintError(
            f"leaving one capability out needs three or more, got {len(names)}; add fingerprints of others."
        )
    scores: dict[str, list[float]] = {"identity": [], "ridge": [], "film": []}
    for at, name in enumerate(names):
        rest = [pair for pair in pairs if pair.capability != name]
        own = [pair for pair in pairs if pair.capability == name]
        watched_names = {
            other for place, other in enumerate(names) if other != name and (place + at) % 5 == 0
        }
        watched_names = watched_names or {next(other for other in names if other != name)}
        known = [pair for pair in rest if pair.capability not in watched_names]
        watched = [pair for pair in rest if pair.capability in watched_names]
        network, _ = train_interpolator(known, watched, settings=settings)
        for pair in own:
            x, y, size = _rows([pair])
            alike = [(p.source, p.target) for p in rest if _same(p, pair)]
            with torch.no_grad():
                scores["film"].append(_cosine(network(x, size), y))
            scores["identity"].append(_cosine(x, y))
            mapped = (
                fit_ridge(alike, strength=strength)(pair.source, size_of(pair.target)).float() if alike else x
            )
            scores["ridge"].append(_cosine(mapped, y))
    means = {name: float(np.mean(values)) for name, values in scores.items()}
    best = max(means["identity"], means["ridge"])
    return LeftOut(
        means["identity"], means["ridge"], means["film"], means["film"] > best, len(scores["film"])
    )


def _rows(pairs: Sequence[Pair]) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.cat([pair.source.vector for pair in pairs]),
        torch.cat([pair.target.vector for pair in pairs]),
        torch.stack([ends(size_of(pair.source), size_of(pair.target)) for pair in pairs]),
    )


def _cosine(found: Tensor, wanted: Tensor) -> float:
    return float(functional.cosine_similarity(found, wanted, dim=1).mean())


def _same(one: Pair, other: Pair) -> bool:
    return size_of(one.source).same_shape(size_of(other.source)) and size_of(one.target).same_shape(
        size_of(other.target)
    )


def _check(pairs: Sequence[Pair], watched: Sequence[Pair]) -> None:
    if not pairs or not watched:
        raise FingerprintError(
            f"an interpolator needs pairs to learn from and others to watch, got {len(pairs)} and {len(watched)}; add "
            "capabilities."
        )
    for pair in [*pairs, *watched]:
        comparable(pair.source, pair.target)
        comparable(pair.source, pairs[0].source)
