"""What two capabilities at once look like: the changes of two experts of one base added up, read and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.index_plan import Member
from benchmarks.index_read import base_of, probes
from benchmarks.space_experts import WORK, place_of
from benchmarks.space_plan import SMALL, split_of
from umaf.extraction.inputs import read_inputs
from umaf.models import Model, open_model

HOME = WORK / "sums"
PAIRS = 4
"""Of each model."""


def sums(
    members: Sequence[Member], shelves: Sequence[Path]
) -> dict[tuple[Member, Member], Mapping[str, Tensor]]:
    """Read pairs of held-out experts of every small model; those that were read come from the disk."""
    found = {}
    for pair in _pairs(members):
        path = HOME / f"{pair[0].name}+{pair[1].name}.safetensors"
        if not path.exists():
            HOME.mkdir(parents=True, exist_ok=True)
            save_file(_read(pair, shelves), path)
        found[pair] = load_file(path)
    return found


def add(one: Model, other: Model, base: Model) -> None:
    """Add what another expert of the same base learned to one, in place; heads of other sizes stay as they are."""
    own, added, before = one.net.state_dict(), other.net.state_dict(), base.net.state_dict()
    with torch.no_grad():
        for name, value in own.items():
            fits = name in before and name in added and added[name].shape == value.shape == before[name].shape
            if value.is_floating_point() and fits:
                value.copy_(value + added[name] - before[name])


def _read(pair: tuple[Member, Member], shelves: Sequence[Path]) -> dict[str, Tensor]:
    base, before = base_of(pair[0].model)
    models = [open_model(place) for member in pair if (place := place_of(member, shelves)) is not None]
    add(models[0], models[1], base)
    own = read_inputs(models[0], probes(), base=None)
    return {"shift": (own.coordinates - before.coordinates).half()}


def _pairs(members: Sequence[Member]) -> list[tuple[Member, Member]]:
    """Pair experts of one small model on held-out tasks, each expert once."""
    found = []
    for model in SMALL:
        own = [m for m in members if m.model == model and m.seed == 0 and split_of(m.task) == "heldout"]
        found += [(own[at], own[at + 1]) for at in range(0, min(len(own) - 1, 2 * PAIRS), 2)]
    return found
