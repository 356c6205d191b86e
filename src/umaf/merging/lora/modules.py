"""One module of several LoRAs, merged: on the joint cores of its factors where that is exact, else entry by entry."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from umaf.checkpoints import Checkpoint
from umaf.deltas.adapter import Adapter, Target
from umaf.deltas.changes import Factors, changed
from umaf.deltas.extract import Amount, factors
from umaf.deltas.lowrank import LowRank, add, joint, norm, nothing, rank_of, relative, truncate
from umaf.deltas.names import Names
from umaf.merging.lora.options import OptionsAt
from umaf.merging.planning.roles import parts_of
from umaf.merging.planning.rules import Rule
from umaf.merging.registry import method_of
from umaf.merging.running.crew import NOTHING, Measures
from umaf.merging.running.feeds import Feed, Flat
from umaf.merging.running.room import Room
from umaf.merging.running.thin import Thin, Zeros
from umaf.merging.running.views import join, pieces
from umaf.merging.running.work import Work, merge_into, rule_of


@dataclass(frozen=True)
class Setting:
    """What holds for all modules of one merge of LoRAs.

    Attributes:
        method: a name of the registry, or a rule.
        options: checked.
        amount: ranks of what is not exact.
        energy: share of the squared norm to keep of what is exact; None loses nothing.
        adapters: in the user's order.
        config: of the base; None where it is not at hand.
        base: weights of the base; None where they are not needed.
        scale: the merged delta is multiplied by it.
        seed: of methods that draw.
        conv1d: linear weights are stored as `[in, out]`.
        blocks: names have numbers of layers.
        at: gives the options of a tensor, `scale` among them, where they differ between tensors.
    """

    method: str
    options: Mapping[str, Any]
    amount: Amount
    energy: float | None
    adapters: tuple[Adapter, ...]
    config: Mapping[str, Any] | None = None
    base: Checkpoint | None = None
    scale: float = 1.0
    seed: int = 0
    conv1d: bool = False
    blocks: bool = True
    at: OptionsAt | None = None

    def given(self, tensor: str) -> tuple[Mapping[str, Any], float]:
        """Give the options of a tensor, and what its merged delta is multiplied by."""
        if self.at is None:
            return self.options, self.scale
        own = dict(self.at(tensor))
        scale = float(own.pop("scale", 1.0))
        # Where a mean of weights is one of deltas, the rule takes what `self.options` has.
        return {name: value for name, value in own.items() if name in self.options}, scale


@dataclass(frozen=True)
class Module:
    """A module that some of the adapters change.

    Attributes:
        name: of the module, or of a parameter.
        targets: what each adapter does; None where it does nothing.
        transposed: its tensor is stored the other way round.
        work: the merge of that tensor, as an engine would do it.
    """

    name: str
    targets: tuple[Target | None, ...]
    transposed: bool
    work: Work

    @property
    def target(self) -> Target:
        """Of the first adapter that changes it."""
        return next(target for target in self.targets if target is not None)

    @property
    def deltas(self) -> list[LowRank]:
        """Of every adapter; of rank 0 where it does nothing."""
        empty = nothing(self.target.delta.shape)
        return [empty if target is None else target.delta for target in self.targets]


def module_of(setting: Setting, name: str, targets: Sequence[Target | None]) -> Module:
    """Describe a module as the tensor it is in a checkpoint; factors are multiplied out when they are read.

    Args:
        setting: of the merge.
        name: of the module or parameter.
        targets: what each adapter does.

    Example:
        >>> one = Target("linear", LowRank(torch.ones(1, 3), torch.ones(2, 1)))
        >>> found = module_of(Setting("mean", {}, Amount(), None, (Adapter("x", {}, {}),)), "layers.0.up", [one])
        >>> found.work.name, found.work.shape
        ('layers.0.up.weight', (2, 3))
    """
    one = next(target for target in targets if target is not None)
    transposed = one.kind == "embedding" or (one.kind == "linear" and setting.conv1d)
    tensor = name if one.kind == "parameter" else f"{name}.weight"
    shape = Factors(one.delta, transposed).shape
    base = None
    if on_weights(setting.method) or any(target and target.magnitude is not None for target in targets):
        base = _weight(setting, tensor)
    ground = base.reshape(-1) if base is not None and on_weights(setting.method) else None
    rows: list[Feed] = []
    for adapter, target in zip(setting.adapters, targets, strict=True):
        delta, where = nothing(one.delta.shape) if target is None else target.delta, f"{adapter.name}: {name}"
        if base is not None and target is not None and target.magnitude is not None:
            weight = changed(base, Factors(delta, transposed, target.magnitude))
            rows.append(Flat((weight if ground is not None else weight - base).reshape(-1), where))
        else:
            rows.append(Thin(delta, transposed, ground, where))
    parts = parts_of(tensor, shape, setting.config, blocks=setting.blocks)
    if parts.matrix and parts.transposed != transposed:  # names do not tell how it lies, but the adapters do
        fits = sum(parts.sizes) * parts.groups == one.delta.shape[-2]
        parts = replace(parts, transposed=transposed, sizes=parts.sizes if fits else ())
    below = Zeros(rows[0].numel) if ground is None else Flat(ground, "the base")
    options, scale = setting.given(tensor)
    work = Work(tensor, shape, setting.method, tuple(rows), below, options, scale, parts, setting.seed)
    return Module(name, tuple(targets), transposed, work)


def on_weights(method: str) -> bool:
    """Tell whether a method needs weights where adapters have deltas.

    Example:
        >>> on_weights("slerp"), on_weights("ties"), on_weights("mean")
        (True, False, False)
    """
    if method in {"mean", "sum"}:
        return False
    needs = method_of(method).needs
    return needs.base == "none" or needs.ground


def in_factors(module: Module) -> bool:
    """Tell whether a module can be merged exactly in the space of its factors.

    Example:
        >>> one = Target("linear", LowRank(torch.ones(1, 3), torch.ones(2, 1)))
        >>> setting = Setting("task_arithmetic", {}, Amount(), None, (Adapter("x", {}, {}),))
        >>> in_factors(module_of(setting, "layers.0.up", [one]))
        True
    """
    if any(target is not None and target.magnitude is not None for target in module.targets):
        return False
    rule = rule_of(module.work)
    if rule.method is None:
        return True
    needs = rule.needs
    plain = needs.base != "none" and not needs.ground and not needs.random
    return needs.equivariant and plain


def exactly(
    module: Module, setting: Setting, *, measures: Measures = NOTHING
) -> tuple[LowRank, float, float]:
    """Run the method on the joint cores of a module; of a fused one on those of each matrix in it.

    Args:
        module: whose factors are merged.
        setting: of the merge.
        measures: of the whole model, for methods that want one.

    Returns:
        Factors of the merged delta, its norm, and their relative error.

    Example:
        >>> one = Target("linear", LowRank(torch.ones(1, 4), torch.ones(1, 1)))
        >>> setting = Setting("task_arithmetic", {"weight": (2.0,)}, Amount(), None, (Adapter("x", {}, {}),))
        >>> delta, size, error = exactly(module_of(setting, "layers.0.up", [one]), setting)
        >>> delta.rank, round(size, 4), error
        (1, 4.0, 0.0)
    """
    rule, fused = rule_of(module.work), replace(module.work.parts, transposed=False)
    split = rule.needs.matrices and bool(fused.sizes)
    shown = [pieces(delta.b, fused) if split else [delta.b] for delta in module.deltas]
    rows = []
    for number in range(len(shown[0])):
        own = [LowRank(delta.a, b[number]) for delta, b in zip(module.deltas, shown, strict=True)]
        cores, left, right = joint(own)
        core = _run(rule, cores, module.work, own[0].shape, measures.of(module.work)) * module.work.scale
        if len(shown[0]) == 1:
            return _from_core(setting, core, left, right, size=_size(cores, module.work.scale))
        # The rows of the other matrices stay zero.
        below = [b.new_zeros(*b.shape[:-1], core.shape[-1]) for b in shown[0]]
        below[number] = left @ core
        rows.append(LowRank(right, join(below, fused)))
    whole = add(rows)
    small, error = truncate(whole, setting.amount.rank, energy=setting.energy)
    return small, float(torch.linalg.vector_norm(norm(whole))), error


def _run(
    rule: Rule, cores: Tensor, work: Work, shape: Sequence[int], measured: Mapping[str, Tensor] | None
) -> Tensor:
    """Call a method on cores `[model, *batch, R, R']`."""
    function = rule.function
    if function is None:
        return torch.zeros_like(cores[0])
    keywords: dict[str, Any] = {"weight": work.options["weight"]} if "weight" in work.options else {}
    if rule.method is not None:
        keywords = {name: value for name, value in work.options.items() if name in rule.method.options}
        if "shape" in inspect.signature(rule.method.function).parameters:
            keywords["shape"] = tuple(shape[-2:])
        if measured is not None:
            keywords["measured"] = measured
    if cores.ndim == 4 and rule.method is not None and not rule.needs.batched and rule.needs.matrices:
        return torch.stack([function(cores[:, expert], **keywords) for expert in range(cores.shape[1])])
    return function(cores, **keywords)


def _size(cores: Tensor, scale: float) -> float:
    return abs(scale) * float(torch.linalg.vector_norm(cores))


def _from_core(
    setting: Setting, core: Tensor, left: Tensor, right: Tensor, *, size: float
) -> tuple[LowRank, float, float]:
    """Split a merged core into factors of the rank that is asked for: only the core is decomposed."""
    u, s, vt = torch.linalg.svd(core, full_matrices=False)
    # What is left where deltas cancel is rounding.
    floor = 4 * torch.finfo(s.dtype).eps * core.shape[-1] ** 0.5 * size
    s = torch.where(s > floor, s, 0.0)
    if not bool(s.any()):
        return nothing((*core.shape[:-2], left.shape[-2], right.shape[-1])), 0.0, 0.0
    kept = rank_of(s, (left.shape[-2], right.shape[-1]), energy=setting.energy)
    rank = setting.amount.rank
    kept = kept if rank == "auto" else min(rank, kept)
    root = s[..., :kept].sqrt()
    small = LowRank(
        (root.unsqueeze(-1) * vt[..., :kept, :]) @ right, left @ (u[..., :kept] * root.unsqueeze(-2))
    )
    return small, float(s.double().square().sum().sqrt()), relative(s[..., kept:], s)


def densely(
    module: Module, setting: Setting, *, room: Room, measures: Measures = NOTHING
) -> tuple[LowRank, float, float]:
    """Merge a module as an engine merges its tensor, and truncate what comes out; returns what :func:`exactly` does.

    Example:
        >>> one = Target("linear", LowRank(torch.ones(1, 4), torch.ones(2, 1)))
        >>> setting = Setting("ties", {"density": (0.5,)}, Amount(), None, (Adapter("x", {}, {}),))
        >>> delta, size, error = densely(module_of(setting, "layers.0.up", [one]), setting, room=Room())
        >>> delta.shape
        (2, 4)
    """
    found = merged(module.work, room=room, measures=measures)
    dense = (found.mT if module.transposed else found).contiguous()
    size = float(torch.linalg.vector_norm(dense, dtype=torch.float64))
    if size == 0:
        return nothing(module.target.delta.shape), 0.0, 0.0
    small = factors(dense, setting.amount, seed=setting.seed, name=module.work.name)
    lost = float(torch.linalg.vector_norm(dense - small.dense(), dtype=torch.float64))
    return small, size, lost / size


def bias_work(module: Module, setting: Setting) -> Work | None:
    """Describe the merge of the biases that adapters add to a module's own; None where none does.

    Methods on weights have nothing to work on there, so biases get the mean of what is added.

    Example:
        >>> one = Target("linear", LowRank(torch.ones(1, 3), torch.ones(2, 1)), bias=torch.ones(2))
        >>> setting = Setting("mean", {}, Amount(), None, (Adapter("x", {}, {}),))
        >>> bias_work(module_of(setting, "layers.0.up", [one]), setting).name
        'layers.0.up.bias'
    """
    given = [None if target is None else target.bias for target in module.targets]
    one = next((bias for bias in given if bias is not None), None)
    if one is None:
        return None
    rows = tuple(
        Flat(torch.zeros_like(one) if bias is None else bias, f"{adapter.name}: {module.name}.bias")
        for adapter, bias in zip(setting.adapters, given, strict=True)
    )
    name = f"{module.name}.bias"
    options, scale = setting.given(name)
    rule, options = ("mean", {}) if on_weights(setting.method) else (setting.method, options)
    work = Work(name, tuple(one.shape), rule, rows, Zeros(one.numel()), options)
    return replace(work, scale=scale, seed=setting.seed)


def merged(work: Work, *, room: Room, measures: Measures = NOTHING) -> Tensor:
    """Run the merge of one tensor in float32, and give what it changes in the base, `[*shape]`.

    Args:
        work: the merge.
        room: memory.
        measures: of the whole model, for methods that want one.

    Example:
        >>> merged(Work("w", (2,), "mean", (Flat(torch.ones(2)),), Zeros(2)), room=Room())
        tensor([1., 1.])
    """
    found = torch.empty(work.numel)
    merge_into(work, found, room=room, measure=measures.of(work))
    if isinstance(work.base, Flat):
        found -= work.base.flat
    return found.view(work.shape)


def whole_works(setting: Setting) -> list[Work]:
    """Describe the merges of tensors that adapters store whole; where one does not, it has the base's there.

    Example:
        >>> whole_works(Setting("mean", {}, Amount(), None, (Adapter("x", {}, {}),)))
        []
    """
    works = []
    for name in dict.fromkeys(name for adapter in setting.adapters for name in adapter.whole):
        base = _weight(setting, name).reshape(-1)
        shape = next(tuple(one.whole[name].shape) for one in setting.adapters if name in one.whole)
        rows = tuple(
            Flat(adapter.whole[name].float().reshape(-1) if name in adapter.whole else base, adapter.name)
            for adapter in setting.adapters
        )
        parts = parts_of(name, shape, setting.config, blocks=setting.blocks)
        options, scale = setting.given(name)
        work = Work(name, shape, setting.method, rows, Flat(base, "the base"), options, scale)
        works.append(replace(work, parts=parts, seed=setting.seed))
    return works


def _weight(setting: Setting, tensor: str) -> Tensor:
    """Read a tensor of the base in float32; stacked experts that a file keeps one by one are put together."""
    base = setting.base
    if base is None:
        raise RuntimeError(f"{tensor}: the weights of the base were not opened.")
    names = Names(setting.adapters[0].name, base)
    split = names.experts(tensor)
    if split is not None:
        return torch.stack([torch.cat([base.read(name).float() for name in row]) for row in split])
    return base.read(names.find(tensor) or tensor).float()
