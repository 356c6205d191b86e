"""Where a training is, on disk: one safetensors file with parameters, moments, the best parameters and the curve."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from umaf.errors import ConfigError
from umaf.training.settings import LoopSettings

FILE = "state.safetensors"
_PLAIN = ("step", "since", "curve")
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass
class State:
    """Where a training is.

    Attributes:
        parameters: the leaves that are trained.
        optimiser: AdamW over them; each group has the "share" of the rate it learns at.
        step: steps done.
        best: parameters with the best validation score so far.
        best_score: that score; -inf before the first look.
        since: looks since then.
        curve: one row per step, and the looks.
    """

    parameters: Mapping[str, Tensor]
    optimiser: torch.optim.AdamW
    step: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    best_score: float = float("-inf")
    since: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)


def fresh_state(
    parameters: Mapping[str, Tensor], settings: LoopSettings, rates: Mapping[str, float]
) -> State:
    """Begin with an optimiser that has seen nothing.

    Args:
        parameters: leaves by name.
        settings: the rate and the decay, which only matrices feel.
        rates: shares of the rate by the beginning of a name.

    Example:
        >>> leaves = {"p": torch.zeros(2, requires_grad=True)}
        >>> fresh_state(leaves, LoopSettings(), {"p": 4.0}).optimiser.param_groups[0]["share"]
        4.0
    """
    groups = []
    for name, leaf in parameters.items():
        known = max((start for start in rates if name.startswith(start)), key=len, default=None)
        decay = settings.decay if leaf.dim() > 1 else 0.0
        groups.append(
            {"params": [leaf], "weight_decay": decay, "share": 1.0 if known is None else rates[known]}
        )
    return State(parameters, torch.optim.AdamW(groups, lr=settings.rate, betas=(0.9, 0.98), foreach=False))


def keep(state: State, folder: Path, about: Mapping[str, Any]) -> None:
    """Write the state, replacing an older one in a single step."""
    tensors = {f"now/{name}": p.detach().cpu().contiguous() for name, p in state.parameters.items()}
    tensors |= {f"best/{name}": p.cpu().contiguous() for name, p in state.best.items()}
    for name, p in state.parameters.items():
        for part, value in state.optimiser.state.get(p, {}).items():
            tensors[f"{part}/{name}"] = value.detach().cpu().contiguous()
    plain = {key: getattr(state, key) for key in _PLAIN} | {"best_score": state.best_score}
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{FILE}.part"
    # Two names may be one tensor in memory right after a look; the file format wants them apart.
    save_file(
        {name: value.clone() for name, value in tensors.items()},
        draft,
        metadata={"state": json.dumps(plain), "about": json.dumps(about, sort_keys=True)},
    )
    os.replace(draft, folder / FILE)


def go_on(state: State, folder: Path, about: Mapping[str, Any]) -> bool:
    """Read a kept state into a fresh one; False where there is none.

    Raises:
        ConfigError: the file is damaged, or of a training of something else.
    """
    path = folder / FILE
    if not path.exists():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            meta = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # not a mapping
        plain, kept = json.loads(meta["state"]), json.loads(meta["about"])
    except (SafetensorError, OSError, KeyError, ValueError) as problem:
        raise ConfigError(
            f"The interrupted training in {folder} cannot be read ({problem}); remove that folder and begin again."
        ) from problem
    asked = json.loads(json.dumps(about))
    other = sorted(key for key in {**kept, **asked} if kept.get(key) != asked.get(key))
    shapes = {name: p.shape for name, p in state.parameters.items()}
    stored = {name.removeprefix("now/"): t.shape for name, t in tensors.items() if name.startswith("now/")}
    if other or shapes != stored:
        raise ConfigError(
            f"The interrupted training in {folder} is of another {other[0] if other else 'shape'}; use what it was "
            "begun with, or remove that folder and begin again."
        )
    for key in _PLAIN:
        setattr(state, key, plain[key])
    state.best_score = plain["best_score"]
    state.best = {
        name.removeprefix("best/"): value for name, value in tensors.items() if name.startswith("best/")
    }
    with torch.no_grad():
        for name, p in state.parameters.items():
            p.copy_(tensors[f"now/{name}"])
            moments = {part: tensors[f"{part}/{name}"] for part in _MOMENTS if f"{part}/{name}" in tensors}
            if moments:
                state.optimiser.state[p] = {
                    part: value if part == "step" else value.to(p.device) for part, value in moments.items()
                }
    return True
