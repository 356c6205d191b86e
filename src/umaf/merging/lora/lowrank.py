"""LoRA folders merged into one LoRA folder: in the space of their factors where that is exact, else module by module.

A method whose result turns with its input (`Needs.equivariant`) runs on the small joint cores of the adapters, and the
result is that of the dense merge. Any other method runs on the dense deltas of one module at a time, and what comes out
is truncated to the rank that is asked for; the error of that is reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from umaf import __version__
from umaf.checkpoints import Checkpoint
from umaf.deltas.adapter import Adapter, Target, read_adapter
from umaf.deltas.extract import Amount
from umaf.deltas.lowrank import Rank
from umaf.deltas.write import write_adapter
from umaf.errors import ConfigError
from umaf.files import refuse_existing
from umaf.merging.lora.dtype import cast, rounded
from umaf.merging.lora.modules import (
    Setting,
    bias_work,
    densely,
    exactly,
    in_factors,
    merged,
    module_of,
    on_weights,
    whole_works,
)
from umaf.merging.lora.options import Vary
from umaf.merging.lora.same_base import base_of, check_mergeable, config_of, targets_of
from umaf.merging.planning.roles import in_block
from umaf.merging.recipes.recipe import Dtype
from umaf.merging.registry import method_of
from umaf.merging.running.apply import check_options
from umaf.merging.running.crew import measure_works
from umaf.merging.running.feeds import Flat
from umaf.merging.running.room import Room
from umaf.merging.writing.card import LORAS

ENERGY = 0.99
"""Share of the squared norm that "auto" keeps of a merge that is not exact."""


@dataclass(frozen=True)
class MergedModule:
    """One module of a merged LoRA.

    Attributes:
        name: of the module or parameter.
        rank: of the merged factors.
        norm: of the merged delta.
        error: of the factors against the dense merge, relative to that norm.
        exact: the method ran on the factors; the error is that of truncation to a rank that was asked for, or rounding.
    """

    name: str
    rank: int
    norm: float
    error: float
    exact: bool


@dataclass(frozen=True)
class LoraMerge:
    """A merged LoRA.

    Attributes:
        folder: where it is.
        modules: what it changes.
        error: of all modules together.
        notes: what was left as it is.
    """

    folder: Path
    modules: tuple[MergedModule, ...]
    error: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class PlannedModule:
    """One module of a LoRA that is to be merged.

    Attributes:
        name: of the module or parameter.
        shape: of its weight's delta, (out, in).
        ranks: of the adapters' factors; 0 where one does nothing.
        rank: of the merged factors, at most.
        exact: the method will run on the factors.
    """

    name: str
    shape: tuple[int, ...]
    ranks: tuple[int, ...]
    rank: int
    exact: bool


@dataclass(frozen=True)
class LoraPlan:
    """What a merge of LoRAs would do.

    Attributes:
        base: of the adapters.
        modules: what it would change.
        notes: what would be left as it is.
    """

    base: str
    modules: tuple[PlannedModule, ...]
    notes: tuple[str, ...]


def plan_loras(
    method: str,
    folders: Sequence[str | Path],
    *,
    rank: Rank = "auto",
    energy: float | None = None,
    base: Checkpoint | None = None,
    seed: int = 0,
    scale: float = 1.0,
    vary: Vary | None = None,
    **options: Any,
) -> LoraPlan:
    """Find out what `merge_loras` would do with the same arguments, and whether it can.

    Args:
        method: as there.
        folders: as there.
        rank: as there.
        energy: as there.
        base: as there.
        seed: as there.
        scale: as there.
        vary: as there.
        options: as there.

    Returns:
        The modules, with the highest rank that each may come to.

    Raises:
        AdapterError: the adapters have different bases, or hold what a merged LoRA cannot.
        ConfigError: an option is wrong, or the method needs the weights of the base.

    Example:
        >>> import tempfile, torch
        >>> from umaf.deltas import LowRank
        >>> one = Target("linear", LowRank(torch.ones(1, 3), torch.ones(2, 1)))
        >>> place = write_adapter(Path(tempfile.mkdtemp()) / "a", {"layers.0.up": one})
        >>> plan_loras("task_arithmetic", [place, place]).modules[0].ranks
        (1, 1)
    """
    asked = _Asked(rank, energy, base, seed, scale, vary)
    setting, ground, notes = _setting(method, folders, asked, options)
    rows, found = targets_of(setting.adapters), []
    most = max([1, *(sum(one.delta.rank for one in row if one) for row in rows.values())])
    for name, row in rows.items():
        module = module_of(setting, name, row)
        ranks = tuple(0 if one is None else one.delta.rank for one in row)
        shape = tuple(module.target.delta.shape)
        exact = in_factors(module)
        wanted = (sum(ranks) if exact else most) if rank == "auto" else rank
        reach = sum(ranks) if exact else wanted
        found.append(PlannedModule(name, shape, ranks, min(wanted, reach, *shape[-2:]), exact))
    return LoraPlan(ground, tuple(found), notes)


def merge_loras(
    method: str,
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    rank: Rank = "auto",
    energy: float | None = None,
    base: Checkpoint | None = None,
    seed: int = 0,
    scale: float = 1.0,
    vary: Vary | None = None,
    dtype: Dtype | None = None,
    record: Mapping[str, Any] | None = None,
    about: str = "",
    **options: Any,
) -> LoraMerge:
    """Merge LoRA folders of one base into one LoRA folder.

    A module that an adapter does not change counts as a delta of zero. What a method measures over the model is
    measured over the modules that adapters change.

    Args:
        method: a name of `umaf methods`, or a rule ("mean", "sum").
        folders: in PEFT's format, or hub ids; ranks, alphas and targets may differ.
        out: folder to write; it does not exist yet.
        rank: of every merged module; "auto" loses nothing where the merge is exact, and else takes the lowest rank that
            holds `energy`, at most the sum of the adapters' ranks.
        energy: share of the squared norm to hold, in (0, 1], for "auto".
        base: weights of the base; only DoRA, modules_to_save and methods that work on weights need it.
        seed: of methods that draw.
        scale: the merged delta is multiplied by it.
        vary: in the place of `scale` and `options` where they differ between tensors.
        dtype: of the stored numbers; None for float32. The errors that are told do not count this last rounding.
        record: what else the folder's umaf.json says.
        about: Markdown that its README.md ends with.
        options: of the method; `weight` among them. One that each adapter may have for itself is a number, or a list.

    Returns:
        Ranks and errors.

    Raises:
        AdapterError: the adapters have different bases, or hold what a merged LoRA cannot.
        ConfigError: an option is wrong, or the method needs the weights of the base.
        NumericalError: an adapter holds NaN or infinity.
        OutputError: the folder exists or cannot be written.

    Example:
        >>> import tempfile, torch
        >>> from umaf.deltas import LowRank
        >>> place = Path(tempfile.mkdtemp())
        >>> one = Target("linear", LowRank(torch.ones(1, 3), torch.ones(2, 1)))
        >>> two = [write_adapter(place / name, {"layers.0.up": one}) for name in ("a", "b")]
        >>> merge_loras("task_arithmetic", two, place / "c", weight=[1.0, 0.5]).modules[0].rank
        1
    """
    refuse_existing(out)
    asked = _Asked(rank, energy, base, seed, scale, vary)
    setting, ground, notes = _setting(method, folders, asked, options)
    targets, whole, modules = _merged(setting)
    if dtype is not None:
        targets = {name: rounded(target, dtype, name) for name, target in targets.items()}
        whole = {name: cast(one, dtype, name) for name, one in whole.items()}
    squares = sum(module.norm**2 for module in modules)
    lost = sum((module.error * module.norm) ** 2 for module in modules)
    found = LoraMerge(Path(out), modules, (lost / squares) ** 0.5 if squares else 0.0, notes)
    write_adapter(
        out,
        targets,
        whole=whole,
        base=ground,
        task=_task(setting.adapters),
        conv1d=setting.conv1d,
        record={**_record(setting, found, ground), **(record or {})},
        about=about,
    )
    return found


@dataclass(frozen=True)
class _Asked:
    rank: Rank
    energy: float | None
    base: Checkpoint | None
    seed: int
    scale: float
    vary: Vary | None = None


def _setting(
    method: str, folders: Sequence[str | Path], asked: _Asked, options: Mapping[str, Any]
) -> tuple[Setting, str, tuple[str, ...]]:
    if not folders:
        raise ConfigError(f"{method} was asked to merge no adapter; give at least one.")
    adapters = tuple(read_adapter(folder) for folder in folders)
    ground = base_of(adapters, asked.base)
    notes = check_mergeable(adapters, asked.base)
    config = config_of(ground, asked.base)
    at = None if asked.vary is None else asked.vary(_shapes(adapters), config)
    name, given = method, dict(options)
    for own in [options] if at is None else [_unscaled(at(tensor)) for tensor in _shapes(adapters)]:
        checked = check_options(name, own, models=len(adapters))
        method, given = _method(name, checked, len(adapters), asked.base)
    ranks = [sum(one.delta.rank for one in row if one) for row in targets_of(adapters).values()]
    setting = Setting(
        method=method,
        options=given,
        amount=Amount(asked.rank, asked.energy if asked.energy is not None else ENERGY, max([1, *ranks])),
        energy=asked.energy if asked.rank == "auto" else None,
        adapters=adapters,
        config=config,
        base=asked.base,
        scale=asked.scale,
        seed=asked.seed,
        conv1d=any(bool(adapter.config.get("fan_in_fan_out")) for adapter in adapters),
        blocks=any(in_block(name) for adapter in adapters for name in adapter.targets),
        at=at,
    )
    return setting, ground, notes


def _shapes(adapters: Sequence[Adapter]) -> dict[str, tuple[int, ...]]:
    """Give the tensors of the base that adapters change, with their shapes."""
    found = {}
    for name, row in targets_of(adapters).items():
        target = next(one for one in row if one is not None)
        found[name if target.kind == "parameter" else f"{name}.weight"] = tuple(target.delta.shape)
        biases = [one.bias for one in row if one is not None and one.bias is not None]
        found |= {f"{name}.bias": tuple(bias.shape) for bias in biases}
    return found | {name: tuple(one.shape) for adapter in adapters for name, one in adapter.whole.items()}


def _unscaled(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "scale"}


def _method(
    name: str, options: Mapping[str, Any], count: int, base: Checkpoint | None
) -> tuple[str, Mapping[str, Any]]:
    """Settle on what deltas are merged by; one on weights needs the base, but for a mean, which is one of deltas."""
    if name in {"mean", "sum"}:
        return name, options
    if name in {"copy", "base"}:
        raise ConfigError(f"{name} merges nothing; choose one of the methods that `umaf methods` lists.")
    fewest, most = method_of(name).needs.models
    if count < fewest or (most is not None and count > most):
        raise ConfigError(
            f"{name} merges {fewest} to {most or 'any number of'} models, got {count} adapters."
        )
    if base is None and name == "linear" and options.get("normalize", True):
        return "mean", {key: value for key, value in options.items() if key == "weight"}
    if base is None and on_weights(name):
        raise ConfigError(
            f"{name} works on whole weights, which adapters do not have; name the base, or choose a method for deltas."
        )
    return name, options


def _merged(
    setting: Setting,
) -> tuple[dict[str, Target], dict[str, Tensor], tuple[MergedModule, ...]]:
    found = [module_of(setting, name, row) for name, row in targets_of(setting.adapters).items()]
    room = Room()
    dense = {module.name: module.work for module in found if not in_factors(module)}
    biases = {module.name: work for module in found if (work := bias_work(module, setting)) is not None}
    whole = whole_works(setting)
    measures = measure_works((*(module.work for module in found), *biases.values(), *whole), room)
    targets: dict[str, Target] = {}
    rows = []
    for module in found:
        exact = module.name not in dense
        if exact:
            delta, size, error = exactly(module, setting, measures=measures)
        else:
            delta, size, error = densely(module, setting, room=room, measures=measures)
        bias = None
        if module.name in biases:
            bias = merged(biases[module.name], room=room, measures=measures)
        if size > 0 or bias is not None:
            # A bias has no place without factors, and PEFT wants a rank of 1 at least.
            targets[module.name] = Target(module.target.kind, delta.padded(1), bias=bias)
            rows.append(MergedModule(module.name, delta.rank, size, error, exact))
    tensors = {}
    for work in whole:
        ground = work.base.flat.view(work.shape) if isinstance(work.base, Flat) else 0.0
        tensors[work.name] = merged(work, room=room, measures=measures) + ground
    return targets, tensors, tuple(rows)


def _task(adapters: Sequence[Adapter]) -> str | None:
    tasks = {adapter.config.get("task_type") for adapter in adapters}
    return next(iter(tasks)) if len(tasks) == 1 else None


def _record(setting: Setting, found: LoraMerge, base: str) -> dict[str, Any]:
    return {
        "umaf": __version__,
        "made": LORAS,
        "method": setting.method,
        "options": _plain(setting.options) if setting.at is None else {},
        "scale": setting.scale,
        **_by_tensor(setting),
        "seed": setting.seed,
        "adapters": [adapter.name for adapter in setting.adapters],
        "base": base,
        "rank": setting.amount.rank,
        "error": found.error,
        "modules": [asdict(module) for module in found.modules],
        "notes": list(found.notes),
    }


def _by_tensor(setting: Setting) -> dict[str, Any]:
    """Give what options were for each tensor, where they differ."""
    if setting.at is None:
        return {}
    given = {name: setting.given(name) for name in _shapes(setting.adapters)}
    return {"by_tensor": {name: {**_plain(own), "scale": scale} for name, (own, scale) in given.items()}}


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(one) if isinstance(one, tuple) else one for name, one in options.items()}
