"""An expert of one model used on another by the numbers of singular values: controls for `umaf.experts.across`.

- `in_order`: as the paper does it (Sun et al., 2025, section 4.4): the i-th largest singular value of one model is
  taken for the i-th of the other.
- `shuffled`: the same numbers in a random order; what is left is chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from umaf import seeds
from umaf.activations import depth_layers
from umaf.errors import ExpertError
from umaf.experts.across import made_across
from umaf.experts.decompose import svf_modules
from umaf.experts.expert import Expert, check_expert, ranks_of
from umaf.models import Model


def in_order(expert: Expert, source: Model, target: Model, modules: Sequence[str] | None = None) -> Expert:
    """Take multipliers by number; of different ranks, by their share of the rank.

    A module's partner is the module of the same kind (attention or MLP) at the same share of depth, and among those
    the one of the same name, or else of the same place in the layer.

    Args:
        expert: of the source.
        source: its base.
        target: the model that gets an expert.
        modules: of the target; all it has of the expert's kinds when not given.

    Raises:
        ExpertError: the expert is not of the source, or there is nothing in the target to put it on.
    """
    check_expert(expert, source)
    names = svf_modules(target) if modules is None else list(modules)
    found = partners(list(expert.z), names)
    if not found:
        raise ExpertError(f'"{target.name}" has no module for any of expert "{expert.name}"; choose others.')
    ranks = ranks_of(target, list(found))
    z = {name: _resampled(expert.z[partner], ranks[name]) for name, partner in found.items()}
    return made_across(expert, target, z, {"way": "order"}, {})


def shuffled(expert: Expert, source: Model, target: Model, *, seed: int = 0) -> Expert:
    """Take multipliers as `in_order` does, then give every module its own in a random order."""
    ordered, z = in_order(expert, source, target), {}
    for name, each in ordered.z.items():
        turn = torch.randperm(each.shape[-1], generator=seeds.generator(seed, "shuffled", name))
        z[name] = each[..., turn]
    return made_across(expert, target, z, {"way": "shuffled", "seed": seed}, {})


def partners(source: Sequence[str], target: Sequence[str]) -> dict[str, str]:
    """Match module names of two models, by depth and kind.

    Example:
        >>> partners(["layers.0.mlp.up", "layers.1.mlp.up"], [f"h.{layer}.mlp.fc" for layer in range(4)])["h.3.mlp.fc"]
        'layers.1.mlp.up'
    """
    own, theirs, found = _grid(target), _grid(source), {}
    depths = {kind: _depths(own, kind) for kind in ("attention", "mlp")}
    for (kind, layer), names in own.items():
        layers = _depths(theirs, kind)
        if not layers:
            continue
        share = (depths[kind].index(layer) + 1) / len(depths[kind])
        candidates = theirs[kind, layers[depth_layers(len(layers), [share])[0]]]
        leaves = [name.rpartition(".")[2] for name in candidates]
        for place, name in enumerate(names):
            leaf = name.rpartition(".")[2]
            at = leaves.index(leaf) if leaf in leaves else place * len(candidates) // len(names)
            found[name] = candidates[at]
    return found


def _grid(names: Sequence[str]) -> dict[tuple[str, int], list[str]]:
    """Names by kind and layer, in their order."""
    grid: dict[tuple[str, int], list[str]] = {}
    for name in names:
        layer = next((int(part) for part in name.split(".") if part.isdigit()), 0)
        grid.setdefault(("attention" if "att" in name.lower() else "mlp", layer), []).append(name)
    return grid


def _depths(grid: Mapping[tuple[str, int], object], kind: str) -> list[int]:
    return sorted(layer for found, layer in grid if found == kind)


def _resampled(z: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Multipliers of one shape for another: the same share of the rank, the same share of stacked experts."""
    for axis, size in ((-1, shape[-1]), *(((0, shape[0]),) if len(shape) > 1 and z.dim() > 1 else ())):
        z = z.index_select(axis, torch.arange(size) * z.shape[axis] // size)
    if len(shape) < z.dim():
        z = z.mean(0)
    return z.expand(shape).clone()
