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
        exact, equal = base + ties(deltas.clone()), base + ties(deltas, equal=True)
        size += float((exact - base).square().sum())
        given = [_read(folder, name).double() for folder in outputs] + [exact.to(torch.bfloat16).double()]
        for program, one in zip(("umaf", "mergekit", "rounding"), given, strict=True):
            wrong[program] += float((one - exact).square().sum())
        wrong["equal"] += float((given[0] - equal).square().sum())
    return {program: (value / size) ** 0.5 for program, value in wrong.items()}


def ties(deltas: Tensor, *, equal: bool = False) -> Tensor:
    """TIES as mergekit means it, in float64: trimmed per tensor, elected by the weighted sum, divided by the weights.

    With `equal`, entries that equal the smallest kept one stay too. The deltas hold something else afterwards.

    Source: Yadav et al., TIES-Merging, NeurIPS 2023, section 3; the variant's parameters are those of its recipes.
    """
    keep = int(DENSITY * deltas[0].numel())
    # Model by model: the stack of a large tensor takes gigabytes in float64.
    sums = torch.zeros_like(deltas[0])
    for delta in deltas:
        delta *= _kept(delta.abs().flatten(), keep, equal=equal).view_as(delta)
        sums += WEIGHT * delta
    sign = torch.where(sums >= 0, 1.0, -1.0)
    total, divisor = torch.zeros_like(sums), torch.zeros_like(sums)
    for delta in deltas:
        agrees = (delta.sign() == sign).double()
        total += WEIGHT * delta * agrees
        divisor += WEIGHT * agrees
    return total / torch.where(divisor == 0, 1.0, divisor)


def _kept(sizes: Tensor, keep: int, *, equal: bool) -> Tensor:
    least = sizes.kthvalue(sizes.numel() - keep + 1).values
    found = sizes >= least
    if not equal:
        found[(sizes == least).nonzero()[keep - int((sizes > least).sum()) :, 0]] = False
    return found


def _read(folder: Path, name: str) -> Tensor:
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            if name in file.keys():
                return file.get_tensor(name)
    raise SystemExit(f"{folder} has no tensor {name}; the merge left it out")
