"""An expert: one multiplier per singular value, its card, and the folder of a few kilobytes that holds both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import load_file, save
from torch import Tensor

from umaf.adapters import weight_of
from umaf.errors import AdapterError, ExpertError
from umaf.evaluation.provenance import versions
from umaf.experts.decompose import base_identity, svf_modules
from umaf.experts.packed import pack, unpack
from umaf.files import whole_folder, write_json
from umaf.models import Model

WEIGHTS, CARD = "expert.safetensors", "expert.json"


class ExpertCard(BaseModel):
    """What an expert is, apart from its numbers.

    Attributes:
        base: the base's name, as it was opened.
        base_identity: which weights the base has (:func:`umaf.experts.base_identity`).
        architecture: the base's ``config.model_type``.
        modules: names of the weights it scales, in the model's order.
        description: one line for people and for dispatchers that read.
        objective: how it was trained: "reinforce", "next-token", ...; "" for one that was not.
        reward: name of the reward, "" where there was none.
        data: what it was trained on: task, sizes, seeds.
        settings: of the training.
        scores: by name, such as "validation".
        curves: by name, one number per step or evaluation.
        versions: of the libraries it was made with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str
    base_identity: str
    architecture: str
    modules: tuple[str, ...]
    description: str = ""
    objective: str = ""
    reward: str = ""
    data: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    scores: dict[str, float] = {}
    curves: dict[str, list[float | None]] = {}
    versions: dict[str, str | None] = {}


@dataclass(frozen=True)
class Expert:
    """A capability as multipliers of singular values.

    Attributes:
        name: on a shelf, unique.
        z: by module, ``[rank]`` (``[expert, rank]`` for stacked experts of a mixture), float32 on the CPU, after
            the bound; 1 changes nothing.
        card: what it is and where it comes from.
    """

    name: str
    z: Mapping[str, Tensor]
    card: ExpertCard


def ranks_of(model: Model, names: list[str] | tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Give the shape of z by module: ``(rank,)``, or ``(expert, rank)`` for stacked experts.

    Raises:
        AdapterError: the model has no such module.
    """
    shapes = {name: tuple(weight_of(model, name).shape) for name in names}
    return {name: (*shape[:-2], min(shape[-2:])) for name, shape in shapes.items()}


def identity_expert(model: Model, name: str, *, modules: list[str] | None = None) -> Expert:
    """Make the expert that changes nothing: where training starts.

    Args:
        model: the base.
        name: of the expert.
        modules: what `svf_modules` gave; all of the model's by default.

    Example:
        >>> from umaf.models import open_model
        >>> expert = identity_expert(open_model("zoo:llama-1m"), "none")
        >>> all((z == 1).all() for z in expert.z.values())
        True
    """
    names = svf_modules(model) if modules is None else list(modules)
    z = {name: torch.ones(shape) for name, shape in ranks_of(model, names).items()}
    return Expert(name, z, new_card(model, names))


def new_card(model: Model, modules: list[str] | tuple[str, ...], **fields: Any) -> ExpertCard:
    """Start a card for an expert of a base; fields beside the base's own as :class:`ExpertCard` has them."""
    return ExpertCard(
        base=model.name,
        base_identity=base_identity(model),
        architecture=model.config.model_type,
        modules=tuple(modules),
        versions=versions(),
        **fields,
    )


def save_expert(expert: Expert, folder: str | Path) -> Path:
    """Write an expert as a folder, whole or not at all.

    Returns:
        The folder: ``expert.safetensors`` and ``expert.json``.

    Raises:
        ExpertError: a multiplier is NaN or infinite.
        OutputError: the folder exists or cannot be written.
    """
    for name, z in expert.z.items():
        if not torch.isfinite(z).all():
            raise ExpertError(
                f'Expert "{expert.name}" holds NaN or infinity in "{name}", so it was not saved; train it again.'
            )
    with whole_folder(folder) as draft:
        # Written as any file is, so that whoever may read the card may read the numbers.
        (draft / WEIGHTS).write_bytes(save(pack(expert.z)))
        write_json(draft / CARD, {"name": expert.name, **expert.card.model_dump(mode="json")})
    return Path(folder)


def load_expert(folder: str | Path) -> Expert:
    """Read an expert's folder.

    Raises:
        ExpertError: no expert there, or its two files do not belong together.

    Example:
        >>> load_expert("no/such/folder")
        Traceback (most recent call last):
        umaf.errors.ExpertError: The expert no/such/folder was asked for, but there is no expert.json; check the path.
    """
    name, card = read_card(folder)
    try:
        z = unpack(load_file(Path(folder) / WEIGHTS))
    except Exception as problem:  # safetensors has its own tree; the user gets one sentence
        why = " ".join(str(problem).split())[:120].rstrip(".")
        raise ExpertError(f"The expert {folder} has unreadable numbers ({why}); copy it again.") from problem
    if set(z) != set(card.modules):
        odd = sorted(set(z) ^ set(card.modules))[0]
        raise ExpertError(
            f'The expert {folder} is not whole: "{odd}" is only in one of {WEIGHTS} and {CARD}; copy it again.'
        )
    if any(not torch.isfinite(each).all() for each in z.values()):
        raise ExpertError(f"The expert {folder} holds NaN or infinity; train it again.")
    return Expert(name, {module: z[module] for module in card.modules}, card)


def read_card(folder: str | Path) -> tuple[str, ExpertCard]:
    """Read an expert's name and card alone.

    Raises:
        ExpertError: there is none, or it is damaged.
    """
    path = Path(folder) / CARD
    if not path.is_file():
        raise ExpertError(f"The expert {folder} was asked for, but there is no {CARD}; check the path.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        name = str(found.pop("name"))
        return name, ExpertCard.model_validate(found)
    except (OSError, ValueError, KeyError, AttributeError, ValidationError) as problem:
        why = str(problem).splitlines()[0]
        raise ExpertError(f"The card {path} cannot be read ({why}); copy the expert again.") from problem


def check_expert(expert: Expert, model: Model, *, identity: str | None = None) -> None:
    """Stop where an expert is not of this base.

    Args:
        expert: of any origin.
        model: the base it is to be used on.
        identity: of the base, where it is known already.

    Raises:
        ExpertError: another base, a module the base does not have, or another number of singular values.
    """
    about = f'Expert "{expert.name}"'
    try:
        shapes = ranks_of(model, tuple(expert.z))
    except AdapterError as problem:
        raise ExpertError(
            f'{about} is for {expert.card.base} ({expert.card.architecture}), and "{model.name}" '
            f"({model.config.model_type}) lacks some of its modules: {str(problem).partition(';')[0]}."
        ) from problem
    for name, z in expert.z.items():
        if tuple(z.shape) != shapes[name]:
            raise ExpertError(
                f'{about} has {list(z.shape)} multipliers for "{name}", where "{model.name}" has '
                f"{list(shapes[name])} singular values; use the base it was made for, {expert.card.base}."
            )
    found = base_identity(model) if identity is None else identity
    if expert.card.base_identity != found:
        raise ExpertError(
            f"{about} was made for other weights ({expert.card.base}, {expert.card.base_identity[15:27]}) than those "
            f'of "{model.name}" ({found[15:27]}); open its base, or train an expert for this one.'
        )
