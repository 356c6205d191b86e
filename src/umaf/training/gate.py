"""Train the gate of the Latent Fusion Module: among several sources, find the one with the wanted capability.

What is wanted is a fingerprint of the capability from another model than the source, as a user's own probes would
give it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from umaf import seeds
from umaf.errors import FingerprintError
from umaf.extraction import Fingerprint
from umaf.fusion.gated import Gate
from umaf.training.devices import Devices
from umaf.training.loop import Said, Trained, train
from umaf.training.settings import LoopSettings


class GateSettings(LoopSettings):
    """How a gate is trained.

    Attributes:
        sources: most that are fused at once.
        draws: fusions in a step.

    Example:
        >>> GateSettings().sources
        4
    """

    steps: int = Field(default=300, ge=1)
    sources: int = Field(default=4, ge=2)
    draws: int = Field(default=16, ge=1)


def train_gate(
    known: Sequence[tuple[str, Fingerprint]],
    watched: Sequence[tuple[str, Fingerprint]],
    *,
    settings: GateSettings,
    folder: Path | None = None,
    said: Said | None = None,
    devices: Devices | None = None,
) -> tuple[Gate, Trained]:
    """Train a gate.

    Args:
        known: (capability, fingerprint) of train capabilities, each from two models or more.
        watched: the same of validation capabilities.
        settings: how.
        folder: where the state is kept.
        said: called after each step.
        devices: processes that share the work.

    Returns:
        The gate, and how it went; "score" is the share that went to the right source, "cosine" that of fused and
        wanted. The share is what is learned: another capability of the same model may look more like what is wanted.

    Raises:
        FingerprintError: too few capabilities with two fingerprints.
    """
    parts = [_grouped(rows) for rows in (known, watched)]
    gate = Gate(known[0][1].card.extractor)

    def played(group: dict[str, Tensor], names: Sequence[object]) -> tuple[Tensor, Tensor]:
        random = np.random.default_rng(seeds.derive(settings.seed, "gate", *names))
        found = [_play(gate, group, settings.sources, random) for _ in range(settings.draws)]
        return torch.stack([one for one, _ in found]), torch.stack([other for _, other in found])

    def loss(step: int) -> Tensor:
        _, right = played(parts[0], ("step", step))
        return -right.clamp_min(1e-6).log().mean()

    def look() -> dict[str, float]:
        with torch.no_grad():
            cosines, right = played(parts[1], ("look",))
        return {"score": float(right.mean()), "cosine": float(cosines.mean())}

    about = {"capabilities": sorted({name for name, _ in known})}
    done = train(
        dict(gate.named_parameters()),
        loss,
        look,
        settings=settings,
        folder=folder,
        about=about,
        said=said,
        devices=devices,
    )
    return gate.eval().requires_grad_(False), done


def _play(
    gate: Gate, group: dict[str, Tensor], most: int, random: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Draw sources of different capabilities and want one of them: cosine of fused and wanted, weight of the right."""
    names = sorted(group)
    count = int(random.integers(2, min(most, len(names)) + 1))
    chosen = [names[at] for at in random.choice(len(names), size=count, replace=False)]
    wanted, own = (group[chosen[0]][at] for at in random.permutation(len(group[chosen[0]]))[:2])
    rest = [group[name][int(random.integers(len(group[name])))] for name in chosen[1:]]
    rows = torch.stack([own, *rest])
    weights = gate(wanted, rows, torch.full((count,), 1 / count))
    return functional.cosine_similarity(weights @ rows, wanted, dim=0), weights[0]


def _grouped(rows: Sequence[tuple[str, Fingerprint]]) -> dict[str, Tensor]:
    found: dict[str, list[Tensor]] = {}
    for name, fingerprint in rows:
        found.setdefault(name, []).append(fingerprint.vector[0])
    kept = {name: torch.stack(vectors) for name, vectors in found.items() if len(vectors) > 1}
    if len(kept) < 2:
        raise FingerprintError(
            f"a gate needs two capabilities or more that two models have, got {len(kept)}; add fingerprints."
        )
    return kept
