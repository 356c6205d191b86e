"""Merging what is in memory: one tensor per model, or whole state dicts, by the same code that merges files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from umaf.errors import CheckpointError, ConfigError, did_you_mean
from umaf.merging.contract import Option
from umaf.merging.planning.jobs import RULES, Parts
from umaf.merging.planning.roles import in_block, parts_of, role, vectors_are_rows
from umaf.merging.registry import method_of
from umaf.merging.running.feeds import Flat
from umaf.merging.running.room import Room
from umaf.merging.running.work import Work, measured, merge_into, rule_of

State = Mapping[str, Tensor]
_WEIGHT = Option("weight", "number", 1.0, per_model=True)


def merge_tensors(
    method: str,
    tensors: Sequence[Tensor],
    *,
    base: Tensor | None = None,
    seed: int = 0,
    name: str = "",
    scale: float = 1.0,
    parts: Parts | None = None,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> Tensor:
    """Merge one tensor of each model.

    Args:
        method: a name of `umaf methods`, or a rule: "mean", "sum", "base", "copy".
        tensors: of the models, all of one shape, in any dtype.
        base: the same tensor of their base; without it only methods that work on weights can be used.
        seed: of methods that draw.
        name: of the tensor; methods that draw give each name its own numbers.
        scale: the merged delta is multiplied by it.
        parts: how a method that wants matrices sees the tensor; None: a tensor of two axes is a matrix, one of three a
            stack of matrices.
        dtype: of the result; None: that of the first tensor.
        options: of the method; one that each model may have for itself as a number or one for each.

    Returns:
        A tensor of the shape of one of them.

    Raises:
        ConfigError: an option is wrong, or the base is missing.
        CheckpointError: shapes differ.
        NumericalError: an input holds NaN or infinity.

    Example:
        >>> merge_tensors("mean", [torch.tensor([1.0]), torch.tensor([2.0])], weight=[3.0, 1.0])
        tensor([1.2500])
    """
    states = [{name: tensor} for tensor in tensors]
    if not states:
        raise ConfigError(f"{method} was asked to merge no tensor; give one of each model.")
    axes = tensors[0].ndim
    if parts is None:
        parts = Parts(matrix=axes in (2, 3), experts=tensors[0].shape[0] if axes == 3 else 0)
    work = _work(method, name, states, None if base is None else {name: base})
    work = _with(work, check_options(method, options, models=len(states)), seed, scale, parts)
    room = Room()
    over_all = rule_of(work).measures(work.options) == "model"
    measure = measured([work], room) if over_all else None
    return _merged(work, dtype or tensors[0].dtype, room, measure)


def merge_states(
    method: str,
    models: Sequence[State],
    *,
    base: State | None = None,
    config: Mapping[str, Any] | None = None,
    seed: int = 0,
    scale: float = 1.0,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> dict[str, Tensor]:
    """Merge state dicts of one architecture.

    Args:
        method: a name of `umaf methods`, or a rule.
        models: what is merged, in order.
        base: what their deltas are taken from.
        config: config.json of the models, by which fused matrices are told apart; None goes by names and shapes.
        seed: of methods that draw.
        scale: the merged delta is multiplied by it.
        dtype: of the result; None: that of the first model's tensors.
        options: of the method.

    Returns:
        The merged state dict, in the order of the first model. What holds no floating-point numbers must agree.

    Raises:
        ConfigError: an option is wrong, or the base is missing.
        CheckpointError: names or shapes differ.
        NumericalError: an input holds NaN or infinity.

    Example:
        >>> merge_states("mean", [{"w": torch.zeros(2)}, {"w": torch.ones(2)}])
        {'w': tensor([0.5000, 0.5000])}
    """
    if not models:
        raise ConfigError(f"{method} was asked to merge no model; give at least one.")
    names = list(models[0])
    others: list[State] = [*models[1:], *([base] if base is not None else [])]
    for number, state in enumerate(others, start=2):
        odd = sorted(set(names) ^ set(state))
        if odd:
            raise CheckpointError(
                f"{odd[0]} is in one of model 1 and model {number}, not in both (and {len(odd) - 1} more); "
                "models must have the same tensors."
            )
    checked, blocks, room = (
        check_options(method, options, models=len(models)),
        any(map(in_block, names)),
        Room(),
    )
    works = []
    for name in names:
        rule = method if models[0][name].is_floating_point() else "copy"
        shape = tuple(models[0][name].shape)
        parts = parts_of(name, shape, config, blocks=blocks)
        own = checked
        if method not in RULES and vectors_are_rows(role(name, shape, blocks=blocks), parts):
            own = {**method_of(method).needs.rows, **checked}
        works.append(_with(_work(rule, name, models, base), own, seed, scale, parts))
    whole = [work for work in works if rule_of(work).measures(work.options) == "model"]
    measure = measured(whole, room) if whole else None
    return {
        work.name: _merged(work, _kept(models[0][work.name], dtype), room, measure if work in whole else None)
        for work in works
    }


def check_options(method: str, options: Mapping[str, Any], *, models: int) -> dict[str, Any]:
    """Check the options of a method: names, types and ranges.

    Args:
        method: a name of the registry, or a rule, which takes `weight`.
        options: as they were given.
        models: how many are merged.

    Returns:
        The options; those that each model has for itself as tuples.

    Raises:
        ConfigError: an option is unknown, of the wrong type, out of its range, or missing.

    Example:
        >>> check_options("ties", {"density": 1}, models=2)
        {'density': (1.0, 1.0)}
    """
    known = {"weight": _WEIGHT} if method in RULES else method_of(method).options
    found: dict[str, Any] = {}
    for name, value in options.items():
        if name not in known:
            raise ConfigError(
                f"{method} has no option {name!r}; it has {', '.join(known) or 'none'}.{did_you_mean(name, known)}"
            )
        option = known[name]
        if not option.per_model:
            found[name] = option.check(method, value)
            continue
        value = value.tolist() if isinstance(value, Tensor) else value
        values = list(value) if isinstance(value, (list, tuple)) else [value] * models
        if len(values) != models:
            raise ConfigError(
                f"{method}: {name} has {len(values)} numbers for {models} models; give one for each."
            )
        found[name] = tuple(option.check(method, one) for one in values)
    missing = [name for name, option in known.items() if option.required and name not in found]
    if missing:
        raise ConfigError(f"{method} needs the option {missing[0]}; give it.")
    return found


def _work(method: str, name: str, models: Sequence[State], base: State | None) -> Work:
    shape = tuple(models[0][name].shape)
    feeds = []
    states: list[State] = [*models, *([base] if base is not None else [])]
    for number, state in enumerate(states, start=1):
        tensor = state[name]
        who = "the base" if base is not None and number > len(models) else f"model {number}"
        if tuple(tensor.shape) != shape:
            raise CheckpointError(
                f"{name or 'The tensor'} is {list(shape)} in model 1 and {list(tensor.shape)} in {who}; "
                "they must be equal."
            )
        feeds.append(Flat(tensor.detach().reshape(-1), f"{who}: {name}" if name else who))
    rows = tuple(feeds[: len(models)])
    return Work(name, shape, method, rows, feeds[-1] if base is not None else None)


def _with(work: Work, options: Mapping[str, Any], seed: int, scale: float, parts: Parts) -> Work:
    return Work(work.name, work.shape, work.method, work.rows, work.base, options, scale, parts, seed)


def _kept(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype


def _merged(work: Work, dtype: torch.dtype, room: Room, measure: Mapping[str, Tensor] | None) -> Tensor:
    target = torch.empty(work.numel, dtype=dtype)
    merge_into(work, target, room=room, measure=measure)
    return target.view(work.shape)
