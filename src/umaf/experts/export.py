"""An expert in other forms: a LoRA for PEFT, a merged checkpoint, a smaller expert. Each says what it loses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from umaf import __version__
from umaf.adapters import is_stacked, sharing_copy, weight_of, write_lora
from umaf.errors import ExpertError
from umaf.experts.decompose import Factored
from umaf.experts.expert import Expert, check_expert
from umaf.experts.packed import step_of
from umaf.files import whole_folder, write_json
from umaf.models import Model, bare
from umaf.models.quiet import quiet


@dataclass(frozen=True)
class Exported:
    """What came of an export.

    Attributes:
        folder: where it is.
        errors: by module, the norm of what was lost as a share of the norm of the expert's change of the weight.
        error: the same over all modules together.
    """

    folder: Path
    errors: Mapping[str, float]
    error: float


def to_lora(
    expert: Expert,
    model: Model,
    factored: Mapping[str, Factored],
    folder: str | Path,
    *,
    rank: int | Literal["whole"] = "whole",
) -> Exported:
    """Write an expert as a LoRA in PEFT's format.

    The change of a weight is u diag(s (z - 1)) vh, and its singular vectors are u and vh themselves. So the largest
    |s (z - 1)| are the best LoRA of that rank there is (Eckart and Young, 1936), and no decomposition is made.

    Args:
        expert: of this base.
        model: the base.
        factored: what `decompose` gave for it.
        folder: a path that does not exist yet.
        rank: directions to keep per weight; "whole" keeps every direction that changes.

    Returns:
        The folder and what was lost; of "whole", nothing.

    Raises:
        ExpertError: another base, or a rank below one.
        OutputError: the folder exists or cannot be written.
    """
    check_expert(expert, model)
    if rank != "whole" and rank < 1:
        raise ExpertError(f'A LoRA of rank {rank} was asked for; give at least 1, or "whole".')
    factors, lost = {}, {}
    for name, z in expert.z.items():
        scale = factored[name].s * (z - 1)
        most = max(1, int((scale != 0).sum(-1).max()))
        kept = _largest(scale, most if rank == "whole" else min(rank, most))
        factors[name] = _factors(factored[name], scale, kept)
        lost[name] = (scale.scatter(-1, kept, 0), scale)
    provenance = {"expert": expert.name, "rank": rank, "error": _share(list(lost.values()))}
    write_lora(folder, model, factors, provenance=provenance | {"card": expert.card.model_dump(mode="json")})
    return _exported(folder, lost)


def merged(expert: Expert, model: Model, factored: Mapping[str, Factored], folder: str | Path) -> Exported:
    """Write the base with an expert in its weights, as a checkpoint that needs nothing of umaf.

    The base itself is left as it is; only the changed weights are formed, in the base's own type.

    Args:
        expert: of this base.
        model: the base, bare.
        factored: what `decompose` gave for it.
        folder: a path that does not exist yet.

    Returns:
        The folder and what the weights' type lost of the change by rounding.

    Raises:
        ExpertError: another base, or a model with an adapter around it.
        OutputError: the folder exists or cannot be written.
    """
    check_expert(expert, model)
    if bare(model.net) is not model.net:
        raise ExpertError(f'"{model.name}" carries an adapter; merge the expert into the bare base.')
    changed = replace(model, net=sharing_copy(model.net))
    lost = {}
    for name, z in expert.z.items():
        own, found = weight_of(model, name).detach(), factored[name]
        change = (found.u * (found.s * (z - 1)).unsqueeze(-2)) @ found.vh
        new = (own.float() + change.to(own.device)).to(own.dtype)
        _put(changed, name, new)
        lost[name] = (new.float() - own.float() - change.to(own.device), change)
    about = {"umaf": __version__, "expert": expert.name, "card": expert.card.model_dump(mode="json")}
    with whole_folder(folder) as draft, quiet():
        changed.net.save_pretrained(draft)
        model.tokenizer.save_pretrained(draft)
        write_json(draft / "umaf.json", about)
    return _exported(folder, lost)


def compress(
    expert: Expert,
    factored: Mapping[str, Factored],
    *,
    keep: int | None = None,
    bits: Literal[8] | None = None,
) -> tuple[Expert, float]:
    """Make an expert with fewer directions, or with eight bits per multiplier; saved, it takes less room.

    Args:
        expert: any.
        factored: what `decompose` gave for its base; the singular values weigh what is lost.
        keep: directions per weight that may differ from 1: those with the largest |s (z - 1)|.
        bits: 8 rounds z to 1 plus at most 127 steps either way; the step is a power of two per module.

    Returns:
        The expert, and the norm of what was lost as a share of the norm of its change.

    Raises:
        ExpertError: fewer than one direction, or another number of bits.
    """
    if keep is not None and keep < 1:
        raise ExpertError(f"{keep} directions per weight were to be kept; keep at least 1.")
    if bits not in (None, 8):
        raise ExpertError(f"{bits} bits per multiplier were asked for; 8 is what there is.")
    z, lost = {}, {}
    for name, each in expert.z.items():
        s, new = factored[name].s, each.clone()
        if keep is not None and keep < each.shape[-1]:
            kept = _largest(s * (each - 1), keep)
            new = torch.ones_like(each).scatter(-1, kept, each.gather(-1, kept))
        step = step_of(new.double() - 1) if bits else 0.0
        if step:
            new = (1 + ((new.double() - 1) / step).round() * step).float()
        z[name] = new
        lost[name] = (s * (new - each), s * (each - 1))
    settings = {**expert.card.settings, "compressed": {"keep": keep, "bits": bits}}
    card = expert.card.model_copy(update={"settings": settings})
    return replace(expert, z=z, card=card), _share(list(lost.values()))


def _largest(scale: Tensor, count: int) -> Tensor:
    """Places of the largest numbers, ``[.., count]``."""
    return scale.abs().topk(count, dim=-1).indices


def _factors(factored: Factored, scale: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """A ``[.., rank, in]`` and B ``[.., out, rank]`` of the kept directions, of equal norms."""
    size = scale.gather(-1, kept)
    root = size.abs().sqrt()
    rows = kept.unsqueeze(-1).expand(*kept.shape, factored.vh.shape[-1])
    columns = kept.unsqueeze(-2).expand(*kept.shape[:-1], factored.u.shape[-2], kept.shape[-1])
    a = factored.vh.gather(-2, rows) * root.unsqueeze(-1)
    b = factored.u.gather(-1, columns) * (root * size.sign()).unsqueeze(-2)
    return a, b


def _put(model: Model, name: str, weight: Tensor) -> None:
    """Set a weight, given as ``[.., out, in]``, in the way its module stores it."""
    path, _, leaf = name.rpartition(".") if is_stacked(model, name) else (name, "", "weight")
    module = model.net.get_submodule(path)
    turned = getattr(module, "is_transposed", False) if is_stacked(model, name) else model.family.conv1d
    weight = weight.mT if turned else weight
    setattr(module, leaf, nn.Parameter(weight.contiguous(), requires_grad=False))


def _share(lost: list[tuple[Tensor, Tensor]]) -> float:
    """Norm of what was lost over the norm of what there was; 0 where there was nothing."""
    gone = sum(float(one.double().square().sum()) for one, _ in lost)
    there = sum(float(one.double().square().sum()) for _, one in lost)
    return (gone / there) ** 0.5 if there else 0.0


def _exported(folder: str | Path, lost: Mapping[str, tuple[Tensor, Tensor]]) -> Exported:
    errors = {name: _share([pair]) for name, pair in lost.items()}
    return Exported(Path(folder), errors, _share(list(lost.values())))
