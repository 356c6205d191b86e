"""What changed between two checkpoints: tensor by tensor, by layer and by kind of module, read once and in pieces."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from umaf.checkpoints import Checkpoint
from umaf.errors import CheckpointError, NumericalError

CHUNK = 1 << 20
"""Entries compared at a time."""

OUTSIDE = "outside"
"""The layer of tensors that are in none."""

_BLOCK = re.compile(r"^(?:(.*?)\.)?(\d+)\.(.*)$")


@dataclass(frozen=True)
class Change:
    """How a tensor, or many together, differ between two checkpoints.

    Attributes:
        name: of the tensor or the group.
        entries: how many numbers there are.
        relative: norm of the change divided by the norm in the first; infinite where that is zero and the other is not.
        cosine: of all numbers before and after; 1 where both are zero, 0 where one is.
        changed: share of the entries that are not equal, in [0, 1].
        largest: largest absolute change.
        norm: of the change.
    """

    name: str
    entries: int
    relative: float
    cosine: float
    changed: float
    largest: float
    norm: float


@dataclass(frozen=True)
class Difference:
    """What two checkpoints have in common, compared, and what only one has.

    Attributes:
        total: everything compared.
        tensors: in the order of the first checkpoint's files.
        layers: by numbered block, the rest under "outside".
        kinds: by module, whatever the layer: "self_attn.q_proj.weight".
        cells: by layer and kind at once, without what lies outside of layers.
        only_first: names the second lacks.
        only_second: names the first lacks.
        reshaped: (name, shape in the first, shape in the second); these are not compared.
    """

    total: Change
    tensors: tuple[Change, ...]
    layers: tuple[Change, ...]
    kinds: tuple[Change, ...]
    cells: Mapping[tuple[str, str], Change]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    reshaped: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]


@dataclass(frozen=True)
class _Sums:
    entries: int = 0
    unequal: int = 0
    before: float = 0.0  # squared norms
    after: float = 0.0
    product: float = 0.0
    change: float = 0.0
    largest: float = 0.0

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(
            self.entries + other.entries,
            self.unequal + other.unequal,
            self.before + other.before,
            self.after + other.after,
            self.product + other.product,
            self.change + other.change,
            max(self.largest, other.largest),
        )


def difference(
    first: Checkpoint, second: Checkpoint, *, report: Callable[[str], object] | None = None
) -> Difference:
    """Compare two checkpoints of one architecture; both are read once, in pieces.

    Args:
        first: what the other is measured against, usually the base.
        second: usually the fine-tuned model.
        report: called with the name of each tensor before it is read.

    Raises:
        CheckpointError: they have no tensor in common.
        NumericalError: a tensor holds NaN or infinity.

    Example:
        >>> from umaf.checkpoints import open_checkpoint
        >>> found = difference(open_checkpoint("zoo:llama-1m"), open_checkpoint("zoo:llama-1m"))
        >>> found.total.relative, found.total.changed, found.only_first
        (0.0, 0.0, ())
    """
    shared = [name for name in first.entries if name in second.entries]
    same = [name for name in shared if first.entries[name].shape == second.entries[name].shape]
    if not same:
        raise CheckpointError(
            f"{first.name} and {second.name} have no tensor of one name and shape, so there is nothing to compare."
        )
    sums: dict[str, _Sums] = {}
    for name in same:
        if report is not None:
            report(name)
        sums[name] = _compared(first, second, name)
        first.release(name)
        second.release(name)
    return Difference(
        _change("all", sums.values()),
        tuple(_change(name, [one]) for name, one in sums.items()),
        _grouped(sums, lambda name: layer_and_kind(name)[0]),
        _grouped(sums, lambda name: layer_and_kind(name)[1]),
        _cells(sums),
        tuple(name for name in first.entries if name not in second.entries),
        tuple(name for name in second.entries if name not in first.entries),
        tuple(
            (name, first.entries[name].shape, second.entries[name].shape)
            for name in shared
            if first.entries[name].shape != second.entries[name].shape
        ),
    )


def layer_and_kind(name: str) -> tuple[str, str]:
    """Split a tensor's name into its numbered block and its module.

    Example:
        >>> layer_and_kind("model.layers.3.mlp.experts.7.w1.weight")
        ('model.layers.3', 'mlp.experts.*.w1.weight')
        >>> layer_and_kind("lm_head.weight")
        ('outside', 'lm_head.weight')
    """
    found = _BLOCK.match(name)
    if found is None:
        return OUTSIDE, name
    prefix, number, rest = found.groups()
    return f"{prefix}.{number}" if prefix else number, re.sub(r"(?<=\.)\d+(?=\.)", "*", rest)


def _compared(first: Checkpoint, second: Checkpoint, name: str) -> _Sums:
    before, after = first.flat(name), second.flat(name)
    exact = before.dtype == after.dtype
    total = _Sums()
    for start in range(0, before.numel(), CHUNK):
        x, y = before[start : start + CHUNK], after[start : start + CHUNK]
        # Numbers of one dtype are compared as stored: no two of them become equal on the way.
        u, v = _numbers(x), _numbers(y)
        unequal = int((x != y).sum()) if exact and x.element_size() > 1 else int((u != v).sum())
        sums = _sums(u, v, unequal)
        if not isfinite(sums.before + sums.after):  # squares of large numbers do not fit float32
            sums = _sums(u.double(), v.double(), unequal)
        total = total + sums
    if isfinite(total.before + total.after):
        return total
    where = first if not bool(torch.isfinite(_numbers(before)).all()) else second
    raise NumericalError(
        f"{where.entries[name].file}: {name} holds NaN or infinity, so what changed in it cannot be measured."
    )


def _numbers(chunk: Tensor) -> Tensor:
    return chunk.to(
        torch.float32 if chunk.is_floating_point() and chunk.dtype != torch.float64 else torch.float64
    )


def _sums(u: Tensor, v: Tensor, unequal: int) -> _Sums:
    u, v = (u, v) if u.dtype == v.dtype else (u.double(), v.double())
    before = float(u @ u)
    if not unequal and isfinite(before):
        return _Sums(u.numel(), 0, before, before, before)
    change = v - u
    return _Sums(
        u.numel(),
        unequal,
        before,
        float(v @ v),
        float(u @ v),
        float(change @ change),
        float(change.abs().max()),
    )


def _change(name: str, parts: Iterable[_Sums]) -> Change:
    whole = sum(parts, start=_Sums())
    apart = whole.change**0.5
    lengths = (whole.before * whole.after) ** 0.5
    if whole.change == 0:
        cosine = 1.0
    else:
        cosine = max(-1.0, min(1.0, whole.product / lengths)) if lengths else 0.0
    relative = apart / whole.before**0.5 if whole.before else (float("inf") if apart else 0.0)
    share = whole.unequal / whole.entries if whole.entries else 0.0
    return Change(name, whole.entries, relative, cosine, share, whole.largest, apart)


def _grouped(sums: dict[str, _Sums], key: Callable[[str], str]) -> tuple[Change, ...]:
    groups: dict[str, list[_Sums]] = {}
    for name, one in sums.items():
        groups.setdefault(key(name), []).append(one)
    return tuple(_change(name, groups[name]) for name in sorted(groups, key=_natural))


def _cells(sums: dict[str, _Sums]) -> dict[tuple[str, str], Change]:
    groups: dict[tuple[str, str], list[_Sums]] = {}
    for name, one in sums.items():
        groups.setdefault(layer_and_kind(name), []).append(one)
    return {
        (layer, kind): _change(f"{layer}.{kind}", parts)
        for (layer, kind), parts in groups.items()
        if layer != OUTSIDE
    }


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sort 10 after 9, and what lies outside of the blocks last."""
    if name == OUTSIDE:
        return [(2, 0, "")]
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)]
