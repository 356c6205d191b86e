"""How far two TIES merges are from the same rule in float64."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

WEIGHT, DENSITY = 0.5, 0.2
CHOSEN = ("model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.down_proj.weight", "lm_head.weight")


def ties_error(models: Sequence[Path], *outputs: Path) -> dict[str, float]:
    """Compute the errors in a process of their own.

    Programs that this one starts would otherwise be counted as large as it is: a child's peak memory begins at its
    parent's.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(errors, models, *outputs).result()


def errors(models: Sequence[Path], *outputs: Path) -> dict[str, float]:
    """Relative error of the merged delta, `|merged - exact| / |exact - base|`, over a few tensors.

    Args:
        models: the base, then the experts.
        outputs: what umaf and mergekit wrote.

    Returns:
        {"umaf": …, "mergekit": …, "rounding": …, "equal": …}. "rounding" is the exact result rounded to bfloat16, which
        no program that writes bfloat16 can beat. "equal" is umaf against the rule that keeps every entry that equals
        the smallest kept one, as umaf does and says; the others are against the rule that keeps as many as were asked
        for, the first ones. Deltas of bfloat16 weights have many equal entries.
    """
    wrong, size = {"umaf": 0.0, "mergekit": 0.0, "rounding": 0.0, "equal": 0.0}, 0.0
    for name in CHOSEN:
        base, *experts = (_read(folder, name).double() for folder in models)
        deltas = torch.stack([one - base for one in experts])
        exact, equal = base + ties(deltas), base + ties(deltas, equal=True)
        size += float((exact - base).square().sum())
        given = [_read(folder, name).double() for folder in outputs] + [exact.to(torch.bfloat16).double()]
        for program, one in zip(("umaf", "mergekit", "rounding"), given, strict=True):
            wrong[program] += float((one - exact).square().sum())
        wrong["equal"] += float((given[0] - equal).square().sum())
    return {program: (value / size) ** 0.5 for program, value in wrong.items()}


def ties(deltas: Tensor, *, equal: bool = False) -> Tensor:
    """TIES as mergekit means it, in float64: trimmed per tensor, elected by the weighted sum, divided by the weights.

    With `equal`, entries that equal the smallest kept one stay too.

    Source: Yadav et al., TIES-Merging, NeurIPS 2023, section 3; the variant's parameters are those of its recipes.
    """
    keep = int(DENSITY * deltas[0].numel())
    trimmed = torch.zeros_like(deltas)
    for row, delta in zip(trimmed, deltas, strict=True):
        place = delta.abs().flatten().argsort(descending=True, stable=True)[:keep]
        if equal:
            place = (delta.abs() >= delta.flatten()[place[-1]].abs()).flatten().nonzero()[:, 0]
        row.view(-1)[place] = delta.flatten()[place]
    weighted = WEIGHT * trimmed
    sign = torch.where(weighted.sum(0) >= 0, 1.0, -1.0)
    agrees = (trimmed.sign() == sign).double()
    divisor = (WEIGHT * agrees).sum(0)
    return (weighted * agrees).sum(0) / torch.where(divisor == 0, 1.0, divisor)


def _read(folder: Path, name: str) -> Tensor:
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            if name in file.keys():
                return file.get_tensor(name)
    raise SystemExit(f"{folder} has no tensor {name}; the merge left it out")
