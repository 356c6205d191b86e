"""LoRA folders that are to be merged: one base, the same shapes, and nothing that a merged LoRA could not hold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from umaf.checkpoints import Checkpoint
from umaf.deltas.adapter import Adapter, Target
from umaf.errors import AdapterError


def base_of(adapters: Sequence[Adapter], base: Checkpoint | None) -> str:
    """Give the name of the base that adapters share.

    Args:
        adapters: as read.
        base: says that it is theirs, whatever they call it.

    Raises:
        AdapterError: they name different bases.

    Example:
        >>> base_of([Adapter("x", {"base_model_name_or_path": "org/b"}, {}), Adapter("y", {}, {})], None)
        'org/b'
    """
    named = {_same(adapter.base): adapter for adapter in adapters if adapter.base}
    if base is not None:
        return next((one.base for one in named.values()), base.name) if len(named) < 2 else base.name
    if len(named) > 1:
        (first, one), (second, other), *_ = named.items()
        raise AdapterError(
            f'The adapter "{one.name}" was trained on {first} and "{other.name}" on {second}; adapters of one '
            "base can be merged, so name the base if these are the same model."
        )
    return next((adapter.base for adapter in named.values()), "")


def _same(name: str) -> str:
    return str(Path(name).expanduser().resolve()) if Path(name).expanduser().exists() else name


def config_of(name: str, base: Checkpoint | None) -> Mapping[str, Any] | None:
    """Give the config of the base, where it is at hand: fused matrices are told apart by it.

    Example:
        >>> config_of("org/somewhere", None)
    """
    if base is not None:
        return base.config
    try:
        return json.loads((Path(name) / "config.json").read_text(encoding="utf-8")) if name else None
    except (OSError, ValueError):
        return None


def targets_of(adapters: Sequence[Adapter]) -> dict[str, list[Target | None]]:
    """Give what each adapter does to each module that one of them changes; None where one does nothing.

    Raises:
        AdapterError: adapters see a module in different ways.

    Example:
        >>> targets_of([Adapter("x", {}, {})])
        {}
    """
    names = dict.fromkeys(name for adapter in adapters for name in adapter.targets)
    found = {}
    for name in names:
        have = [(one, one.targets[name]) for one in adapters if name in one.targets]
        (first, target), *others = have
        for other, its in others:
            if its.kind != target.kind or its.delta.shape != target.delta.shape:
                raise AdapterError(
                    f'{name} is changed as {target.kind} {list(target.delta.shape)} by "{first.name}" and as '
                    f'{its.kind} {list(its.delta.shape)} by "{other.name}"; only adapters of one base can be merged.'
                )
        found[name] = [one.targets.get(name) for one in adapters]
    return found


def check_mergeable(adapters: Sequence[Adapter], base: Checkpoint | None) -> tuple[str, ...]:
    """Refuse what factors cannot say.

    Args:
        adapters: as read.
        base: weights, without which DoRA and modules_to_save say nothing of what they changed.

    Returns:
        What is left as it is, in sentences.

    Raises:
        AdapterError: an adapter holds what cannot be merged into a LoRA.

    Example:
        >>> check_mergeable([Adapter("x", {}, {})], None)
        ()
    """
    for adapter in adapters:
        hint = "merge whole models instead, as base+adapter"
        if adapter.tokens:
            raise AdapterError(
                f'The adapter "{adapter.name}" replaces rows of {next(iter(adapter.tokens))}, which a merged LoRA '
                f"cannot hold; {hint}."
            )
        bias = [name for name in adapter.whole if not saved(name, adapter)]
        if bias:
            raise AdapterError(
                f'The adapter "{adapter.name}" trains {bias[0]} beside its factors, which a merged LoRA cannot '
                f"hold; {hint}."
            )
        dora = [name for name, target in adapter.targets.items() if target.magnitude is not None]
        needs = [*dora, *adapter.whole]
        if needs and base is None:
            how = "by a DoRA" if dora else "as a whole"
            raise AdapterError(
                f'The adapter "{adapter.name}" changes {needs[0]} {how}, which only the weights of its base turn '
                "into a delta; name the base."
            )
    copies = {name: tensor for adapter in adapters for name, tensor in adapter.frozen.items()}
    for adapter in adapters:
        for name, tensor in adapter.frozen.items():
            if not torch.equal(tensor, copies[name]):
                raise AdapterError(
                    f'The adapter "{adapter.name}" comes with another {name} than the others; their bases differ.'
                )
    return tuple(
        f"{name}: the copy of the base's weights beside its factors was left out." for name in copies
    )


def saved(name: str, adapter: Adapter) -> bool:
    """Tell whether a tensor belongs to a module that an adapter saves whole.

    Example:
        >>> saved("lm_head.weight", Adapter("x", {"modules_to_save": ["lm_head"]}, {}))
        True
    """
    module = name.rpartition(".")[0]
    listed = adapter.config.get("modules_to_save") or []
    return any(f".{module}.".find(f".{one}.") >= 0 for one in listed)
