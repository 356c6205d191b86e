"""How far a model's fingerprint has moved at each checkpoint of a fine-tuning run."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from umaf.adapters import load_adapter
from umaf.errors import FingerprintError
from umaf.extraction import extract
from umaf.models import Model, open_model
from umaf.monitor.alarms import Alarms
from umaf.pulse import tell


@dataclass(frozen=True)
class Drift:
    """One checkpoint of a run.

    Attributes:
        checkpoint: its name.
        step: the last number in its name, or its place in the run.
        strength: how far its fingerprint is from the base's, before it is brought to length 1.
        turned: 1 - cosine to the fingerprint of the checkpoint before; NaN for the first.
        left: 1 - cosine to the fingerprint of the last checkpoint: how much of the way is still ahead.
        alarms: what looks wrong.
    """

    checkpoint: str
    step: int
    strength: float
    turned: float
    left: float
    alarms: tuple[str, ...]


def checkpoints_of(folder: str | Path) -> list[Path]:
    """List the checkpoints of a run in the order of their steps: its sub-folders with a model or an adapter in them.

    Raises:
        FingerprintError: there are none.

    Example:
        >>> checkpoints_of("no/such/folder")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        umaf.errors.FingerprintError: The checkpoints of no/such/folder were asked for, but no folder in it holds ...
    """
    found = [
        path.parent
        for name in ("config.json", "adapter_config.json")
        for path in Path(folder).glob(f"*/{name}")
    ]
    if not found:
        raise FingerprintError(
            f"The checkpoints of {folder} were asked for, but no folder in it holds a model or an adapter; name the "
            "folder a training wrote its checkpoints to."
        )
    return sorted(set(found), key=lambda path: (_step(path, -1), path.name))


def drift(
    base: Model,
    checkpoints: Sequence[Path],
    probes: Sequence[str],
    *,
    load: Callable[[Path], Model] | None = None,
    say: Callable[[str], object] = lambda _: None,
) -> list[Drift]:
    """Fingerprint every checkpoint of a run against its base, on the same probes.

    Args:
        base: what the run started from.
        checkpoints: what `checkpoints_of` gave.
        probes: 16 texts or more.
        load: opens a checkpoint; by default a model's folder as a model, an adapter's on the base.
        say: called with a few words before each checkpoint.

    Returns:
        One row per checkpoint. The numbers are told to a monitor too, as the job "drift".

    Raises:
        UmafError: a checkpoint cannot be opened or read.
    """
    opened = load or (lambda path: _opened(path, base))
    vectors, strengths = [], []
    for path in checkpoints:
        say(f"fingerprint {path.name}")
        found = extract(opened(path), probes, base=base)
        vectors.append(found.vector.flatten().double().numpy())
        strengths.append(float(found.card.strength or 0.0))
    alarms, rows = Alarms(), []
    for place, path in enumerate(checkpoints):
        step = _step(path, place)
        turned = 1 - _cosine(vectors[place - 1], vectors[place]) if place else float("nan")
        numbers = {"strength": strengths[place], "left": 1 - _cosine(vectors[place], vectors[-1])}
        numbers |= {"turned": turned} if place else {}
        tell("drift", step, **numbers)
        said = alarms.watch("drift", step, numbers)
        if strengths[place] == 0.0:
            said.append(f"{path.name} answers every probe like its base")
        rows.append(Drift(path.name, step, strengths[place], turned, numbers["left"], tuple(said)))
    return rows


def _opened(path: Path, base: Model) -> Model:
    return load_adapter(base, path) if (path / "adapter_config.json").is_file() else open_model(path)


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / lengths if lengths else 0.0


def _step(path: Path, otherwise: int) -> int:
    numbers = re.findall(r"\d+", path.name)
    return int(numbers[-1]) if numbers else otherwise
