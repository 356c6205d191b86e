"""Merging experts as they arrive: the state of OPCM on disk, one tensor in memory at a time.

    state = opcm_start(base, "merge-state")
    state = opcm_add(state, expert)        # again for each expert, on the same day or later: opcm_open(base, ...)
    for name, tensor in opcm_merged(state): ...

A base and an expert are mappings from names to tensors; they may read lazily. The state holds the sum of what the
experts added, in float32, and a few numbers, so it is as large as one model. An interrupted addition leaves the state
before it.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from umaf.errors import CheckpointError, ConfigError, NumericalError
from umaf.files import refuse_existing, whole_folder, write_json
from umaf.merging.methods.opcm import outside
from umaf.merging.planning.roles import role

_FILE = "state.json"


@dataclass(frozen=True)
class Opcm:
    """How far a merge has come.

    Attributes:
        seen: experts added.
        mean_norm: mean of the Frobenius norms of their deltas, over the whole model.
        norm: norm of the sum of what was added of them.
        alpha: as in :func:`umaf.merging.methods.opcm.opcm`.
    """

    seen: int
    mean_norm: float
    norm: float
    alpha: float

    @property
    def factor(self) -> float:
        """Norm of the sum over the mean norm (lambda in the paper), about the square root of `seen`."""
        return self.norm / self.mean_norm if self.mean_norm > 0 else 1.0


@dataclass(frozen=True)
class OpcmState:
    """A merge so far: numbers, the base, and the folder that holds the rest.

    Attributes:
        base: names to tensors.
        folder: of the state.
        progress: the numbers.
        is_matrix: tells from a name and a base tensor whether it is a linear layer's weight, to be projected.
    """

    base: Mapping[str, Tensor]
    folder: Path
    progress: Opcm
    is_matrix: Callable[[str, Tensor], bool]


def linear_weight(name: str, tensor: Tensor) -> bool:
    """Tell whether a tensor looks like the weight of a linear layer inside a block: two axes, no table, no head.

    Example:
        >>> [linear_weight(name, torch.zeros(4, 2)) for name in ("layers.0.mlp.up_proj.weight", "lm_head.weight")]
        [True, False]
    """
    return role(name, tuple(tensor.shape)) == "matrix"


def opcm_start(
    base: Mapping[str, Tensor],
    folder: str | Path,
    *,
    alpha: float = 0.5,
    is_matrix: Callable[[str, Tensor], bool] = linear_weight,
) -> OpcmState:
    """Begin a merge; no expert is in it yet.

    Args:
        base: names to tensors.
        folder: of the state; nothing may be there.
        alpha: as in :func:`umaf.merging.methods.opcm.opcm`.
        is_matrix: which tensors are projected; the others are added up.

    Raises:
        ConfigError: alpha lies outside [0, 1].
        OutputError: something is at `folder`, or it cannot be written.

    Example:
        >>> state = opcm_start({"layers.0.weight": torch.zeros(2, 2)}, "continual-start")
        >>> state = opcm_add(state, {"layers.0.weight": torch.eye(2)})
        >>> dict(opcm_merged(state))["layers.0.weight"].tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    if not 0 <= alpha <= 1:
        raise ConfigError(f"opcm: alpha must lie in [0, 1], got {alpha:g}.")
    folder = Path(folder)
    refuse_existing(folder)
    progress = Opcm(0, 0.0, 0.0, float(alpha))
    with whole_folder(folder) as draft:
        write_json(draft / _FILE, asdict(progress))
    return OpcmState(base, folder, progress, is_matrix)


def opcm_open(
    base: Mapping[str, Tensor],
    folder: str | Path,
    *,
    is_matrix: Callable[[str, Tensor], bool] = linear_weight,
) -> OpcmState:
    """Go on with a merge that was begun before.

    Args:
        base: the same base as then.
        folder: of the state.
        is_matrix: the same rule as then.

    Raises:
        CheckpointError: there is no state at `folder`.
    """
    try:
        progress = Opcm(**json.loads((Path(folder) / _FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as problem:
        raise CheckpointError(
            f"{folder} holds no state of an OPCM merge ({problem}); begin one with opcm_start."
        ) from problem
    return OpcmState(base, Path(folder), progress, is_matrix)


def opcm_add(state: OpcmState, expert: Mapping[str, Tensor]) -> OpcmState:
    """Add an expert to a merge: what is orthogonal to it, tensor by tensor, saved before this returns.

    Args:
        state: the merge so far.
        expert: names to tensors; the names and shapes of the base.

    Returns:
        The new state; the old one is gone from disk.

    Raises:
        CheckpointError: the expert lacks a tensor of the base, or has another shape.
        NumericalError: a delta holds NaN or infinite values.
        OutputError: the state cannot be written.
    """
    missing = sorted(set(state.base) ^ set(expert))
    if missing:
        raise CheckpointError(
            f"The expert and the base do not both have the tensor {missing[0]}; use experts of this base."
        )
    place = _sums(state.folder, state.progress.seen + 1)
    shutil.rmtree(place, ignore_errors=True)  # left by an addition that was interrupted before it counted
    seen, squares, total = state.progress.seen, 0.0, 0.0
    with whole_folder(place) as draft:
        for number, name in enumerate(sorted(state.base)):
            delta = _delta(state.base[name], expert[name], name)
            merged = _sum(state, number)
            squares += float(delta.double().square().sum())
            if merged is None:
                merged = delta
            elif state.is_matrix(name, delta):
                merged += outside(delta, merged, alpha=state.progress.alpha)
            else:
                merged += delta
            total += float(merged.double().square().sum())
            save_file({"sum": merged.contiguous()}, draft / f"{number:05}.safetensors")
    mean = (state.progress.mean_norm * seen + math.sqrt(squares)) / (seen + 1)
    progress = replace(state.progress, seen=seen + 1, mean_norm=mean, norm=math.sqrt(total))
    write_json(state.folder / _FILE, asdict(progress))
    shutil.rmtree(_sums(state.folder, seen), ignore_errors=True)
    return replace(state, progress=progress)


def opcm_merged(state: OpcmState) -> Iterator[tuple[str, Tensor]]:
    """Give the merged model, tensor by tensor: the base plus the sum, brought to the mean norm of the deltas.

    Args:
        state: the merge so far.

    Yields:
        Names and float32 tensors, by name.
    """
    factor = 1 / state.progress.factor if state.progress.norm > 0 else 1.0
    for number, name in enumerate(sorted(state.base)):
        merged = _sum(state, number)
        base = state.base[name].float()
        yield name, base if merged is None else base + factor * merged


def _sums(folder: Path, seen: int) -> Path:
    return folder / f"sum-{seen:05}"


def _sum(state: OpcmState, number: int) -> Tensor | None:
    """Read what was added so far to one tensor; None before the first expert."""
    if state.progress.seen == 0:
        return None
    path = _sums(state.folder, state.progress.seen) / f"{number:05}.safetensors"
    try:
        return load_file(path)["sum"]
    except (OSError, KeyError, SafetensorError) as problem:
        raise CheckpointError(
            f"{path} cannot be read ({problem}); the state of this merge is damaged."
        ) from problem


def _delta(base: Tensor, expert: Tensor, name: str) -> Tensor:
    if base.shape != expert.shape:
        raise CheckpointError(
            f"{name} is {list(expert.shape)} in the expert and {list(base.shape)} in the base; "
            "use experts of this base."
        )
    delta = expert.float() - base.float()
    if not torch.isfinite(delta).all():
        raise NumericalError(
            f"{name}: the delta from the base holds NaN or infinite values; look at both files."
        )
    return delta
