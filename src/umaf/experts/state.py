"""A training that can be stopped at any step and gone on with to the same bits: one safetensors file.

It holds the parameters, Adam's moments, the best parameters so far, the curve, and what the training was of. Draws
need no saved generator: each is seeded by the run's seed and its step.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from umaf.errors import ConfigError, OutputError

FILE = "state.safetensors"


@dataclass
class State:
    """Where a training is.

    Attributes:
        parameters: the leaves that are trained.
        optimiser: Adam over them.
        rows: prompts in one forward pass; fewer than a step's after memory ran out.
        asked: validation prompts answered at once; fewer after memory ran out.
        step: steps done.
        best: parameters with the best validation score so far.
        best_score: that score; -inf before the first look.
        since: looks since then.
        flat: steps in a row without any advantage.
        curve: one entry per step, and the looks at the validation split.
        moving: a step has begun to move the parameters and is not done.
    """

    parameters: Mapping[str, Tensor]
    optimiser: torch.optim.Adam
    rows: int
    asked: int = 128
    step: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    best_score: float = float("-inf")
    since: int = 0
    flat: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)
    moving: bool = False


def fresh_state(parameters: Mapping[str, Tensor], *, rows: int) -> State:
    """Begin with an Adam that has seen nothing.

    Example:
        >>> fresh_state({"p": torch.zeros(2, requires_grad=True)}, rows=4).step
        0
    """
    # foreach and fused sum in another order on other machines; one tensor at a time is the same everywhere.
    return State(
        parameters, torch.optim.Adam(list(parameters.values()), betas=(0.9, 0.98), foreach=False), rows
    )


def keep(state: State, folder: Path, about: Mapping[str, Any]) -> None:
    """Write the state, replacing an older one in a single step.

    Args:
        state: where the training is.
        folder: made if need be.
        about: what the training is of; `go_on` wants the same.

    Raises:
        OutputError: it cannot be written; an older one stays.
    """
    tensors = {f"now/{name}": p.detach().cpu().contiguous() for name, p in state.parameters.items()}
    tensors |= {f"best/{name}": p.cpu().contiguous() for name, p in state.best.items()}
    for name, p in state.parameters.items():
        for part, value in state.optimiser.state.get(p, {}).items():
            tensors[f"{part}/{name}"] = value.detach().cpu().contiguous()
    plain = {key: getattr(state, key) for key in ("rows", "step", "since", "flat", "curve")}
    plain["best_score"] = None if state.best_score == float("-inf") else state.best_score
    draft, words = folder / f".{FILE}.part", {"state": plain, "about": about}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            tensors, draft, metadata={key: json.dumps(one, sort_keys=True) for key, one in words.items()}
        )
        os.replace(draft, folder / FILE)
    except (OSError, SafetensorError) as problem:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        why = getattr(problem, "strerror", None) or problem
        raise OutputError(
            f"The state of the training cannot be written to {folder} ({why}); make room there, or name another --out."
        ) from problem


def go_on(state: State, folder: Path, about: Mapping[str, Any]) -> bool:
    """Read a kept state into a fresh one; False where there is none.

    Raises:
        ConfigError: the file is damaged, or of a training with another base, task or settings.
    """
    path = folder / FILE
    if not path.exists():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            meta = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        plain, kept = json.loads(meta["state"]), json.loads(meta["about"])
    except (SafetensorError, OSError, KeyError, ValueError) as problem:
        raise ConfigError(
            f"The interrupted training in {folder} cannot be read ({problem}); remove that folder and begin again."
        ) from problem
    other = [key for key in {**kept, **about} if kept.get(key) != json.loads(json.dumps(about)).get(key)]
    if other:
        raise ConfigError(
            f"The interrupted training in {folder} is of another {sorted(other)[0].replace('_', ' ')}; use what it "
            "was begun with, or remove that folder and begin again."
        )
    for key in ("rows", "step", "since", "flat", "curve"):
        setattr(state, key, plain[key])
    state.best_score = float("-inf") if plain["best_score"] is None else plain["best_score"]
    state.best = _part("best", tensors)
    with torch.no_grad():
        for name, p in state.parameters.items():
            p.copy_(tensors[f"now/{name}"])
            moments = {
                part: tensors[f"{part}/{name}"]
                for part in ("step", "exp_avg", "exp_avg_sq")
                if f"{part}/{name}" in tensors
            }
            if moments:
                state.optimiser.state[p] = {
                    part: value if part == "step" else value.to(p.device) for part, value in moments.items()
                }
    return True


def _part(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(f"{part}/"): value for name, value in tensors.items() if name.startswith(f"{part}/")
    }
