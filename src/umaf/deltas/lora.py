"""A LoRA folder as changes of the tensors of a checkpoint, whatever both call them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from umaf.checkpoints import Checkpoint
from umaf.deltas.adapter import Adapter, Target, read_adapter
from umaf.deltas.changes import Added, Change, Factors, Rows, Whole, changed
from umaf.deltas.lowrank import LowRank
from umaf.deltas.names import Names, is_conv1d, stored_transposed, tied_tables
from umaf.errors import AdapterError


@dataclass(frozen=True)
class Lora:
    """What an adapter changes, by the names of the tensors it changes.

    Attributes:
        name: of the adapter, as it was asked for.
        adapter: what the folder holds.
        changes: for each tensor, in the order in which they are applied.
    """

    name: str
    adapter: Adapter
    changes: Mapping[str, tuple[Change, ...]]

    def __contains__(self, tensor: object) -> bool:
        """Tell whether a tensor is changed."""
        return tensor in self.changes

    def __iter__(self) -> Iterator[str]:
        """Give the names of the tensors that are changed."""
        return iter(self.changes)

    def __len__(self) -> int:
        """Count them."""
        return len(self.changes)

    def __getitem__(self, tensor: str) -> tuple[Change, ...]:
        """Give the changes of a tensor."""
        return self.changes[tensor]

    def low_rank(self, tensor: str) -> Factors | None:
        """Give the change of a tensor as factors; None where it is something else, or is more."""
        only = self.changes.get(tensor, ())
        if len(only) == 1 and isinstance(only[0], Factors) and only[0].magnitude is None:
            return only[0]
        return None

    def apply(self, name: str, weight: Tensor) -> Tensor:
        """Give a tensor as it is with the adapter merged in; exact, with DoRA too.

        Args:
            name: of the tensor; one that is not changed is given back.
            weight: of the base, as stored, in float32.

        Raises:
            AdapterError: the shape is not that of the adapter's base.

        Example:
            >>> import torch
            >>> one = Lora("x", Adapter("x", {}, {}), {"w": (Added(torch.ones(2)),)})
            >>> one.apply("w", torch.zeros(2))
            tensor([1., 1.])
        """
        for change in self.changes.get(name, ()):
            _check_shape(self.name, name, tuple(weight.shape), change)
            weight = changed(weight, change)
        return weight


def lora(folder: str | Path, checkpoint: Checkpoint | None = None, *, revision: str | None = None) -> Lora:
    """Read a LoRA folder as changes of tensors.

    Args:
        folder: in PEFT's format, or a hub id.
        checkpoint: the base; names, orientation and shapes are settled by it. Without one, names are PEFT's, and
            weights count as `[in, out]` where the adapter says `fan_in_fan_out`.
        revision: of a hub id.

    Returns:
        Plain LoRA, rsLoRA, patterns of ranks and alphas, DoRA, lora_bias, embeddings, modules_to_save, trained biases,
        trainable tokens, GPT-2's Conv1D and stacked experts, all exactly as PEFT merges them, in float32.

    Raises:
        AdapterError: it cannot be read, does not fit the base, or does what cannot be merged exactly.

    Example:
        >>> import tempfile, torch
        >>> from umaf.deltas import write_adapter
        >>> one = Target("linear", LowRank(torch.ones(1, 3), torch.ones(2, 1)))
        >>> found = lora(write_adapter(Path(tempfile.mkdtemp()) / "adapter", {"layers.0.up": one}))
        >>> list(found), found.apply("layers.0.up.weight", torch.zeros(2, 3)).sum()
        (['layers.0.up.weight'], tensor(6.))
    """
    adapter = read_adapter(folder, revision=revision)
    return resolve(adapter, checkpoint)


def resolve(adapter: Adapter, checkpoint: Checkpoint | None = None) -> Lora:
    """Settle what an adapter that was read changes in a checkpoint; see :func:`lora`.

    Raises:
        AdapterError: it does not fit.

    Example:
        >>> len(resolve(Adapter("x", {}, {})))
        0
    """
    names = Names(adapter.name, checkpoint)
    ties = tied_tables(checkpoint)
    found: dict[str, list[Change]] = {}

    def put(name: str, change: Change) -> None:
        if name in ties and not _all_at_once(change, adapter):
            raise AdapterError(
                f'The adapter "{adapter.name}" changes {name}, which its base uses both for its embeddings and for its '
                "head; save the base with its head untied first."
            )
        if checkpoint is not None:
            _check_shape(adapter.name, name, checkpoint.entries[name].shape, change)
        found.setdefault(name, []).append(change)

    for name, values in {**adapter.frozen, **adapter.whole}.items():
        place = names.find(name, tied=ties if _keeps_ties(adapter) else ())
        if place is not None:
            put(place, Whole(values))
    for name, target in adapter.targets.items():
        for place, change in _placed(name, target, adapter, names, ties):
            put(place, change)
    for module, (index, values) in adapter.tokens.items():
        place = names.find(f"{module}.weight", tied=ties)
        if place is not None:
            put(place, Rows(index, values))
    return Lora(adapter.name, adapter, {name: tuple(changes) for name, changes in found.items()})


def _placed(
    name: str, target: Target, adapter: Adapter, names: Names, ties: set[str]
) -> Iterator[tuple[str, Change]]:
    """Yield the tensors that a target's factors and bias belong to."""
    checkpoint = names.checkpoint
    if target.kind == "parameter":
        yield from _parameter(name, target, names)
        return
    place = names.find(f"{name}.weight", tied=ties if _keeps_ties(adapter) else ())
    if place is None:
        return  # the head of a tied base whose adapter keeps the tie: what is said of the embeddings holds for it
    if target.kind == "embedding":
        transposed = True
    elif checkpoint is None:
        transposed = bool(adapter.config.get("fan_in_fan_out"))
    else:
        # A square weight does not tell how it lies; the model's type does.
        transposed = stored_transposed(target.delta.shape, checkpoint.entries[place].shape)
        if transposed is None:
            transposed = is_conv1d(place, checkpoint.config, bool(adapter.config.get("fan_in_fan_out")))
    yield place, Factors(target.delta, transposed, target.magnitude)
    if target.bias is not None:
        bias = names.find(f"{name}.bias")
        if bias is not None:
            yield bias, Added(target.bias)


def _parameter(name: str, target: Target, names: Names) -> Iterator[tuple[str, Change]]:
    split = names.experts(name)
    if split is None:
        place = names.find(name)
        if place is None:
            return
        stored = names.checkpoint.entries[place].shape if names.checkpoint is not None else target.delta.shape
        transposed = stored_transposed(target.delta.shape, stored)
        if transposed is None:
            transposed = len(stored) == 3 and names.transposed_experts
        yield place, Factors(target.delta, transposed)
        return
    experts = target.delta.a.shape[0] if target.delta.a.ndim == 3 else 0
    if len(split) != experts:
        raise AdapterError(
            f'The adapter "{names.adapter}" has factors of {experts} experts for {name}, and its base has {len(split)}.'
        )
    for a, b, places in zip(target.delta.a, target.delta.b, split, strict=True):
        for rows, place in zip(b.chunk(len(places)), places, strict=True):
            yield place, Factors(LowRank(a, rows))


def _keeps_ties(adapter: Adapter) -> bool:
    return bool(adapter.config.get("ensure_weight_tying"))


def _all_at_once(change: Change, adapter: Adapter) -> bool:
    """Tell whether PEFT changes embeddings and head alike: always for tokens, for the rest if it was told to."""
    return isinstance(change, Rows) or _keeps_ties(adapter)


def _check_shape(adapter: str, name: str, shape: tuple[int, ...], change: Change) -> None:
    if isinstance(change, Rows):
        fits = len(shape) == 2 and change.values.shape[1] == shape[1]
        fits = fits and int(change.index.max()) < shape[0] if change.index.numel() else fits
        wanted = (
            f"rows of {change.values.shape[1]} up to {int(change.index.max()) if change.index.numel() else 0}"
        )
    else:
        mine = change.shape if isinstance(change, Factors) else tuple(change.values.shape)
        fits, wanted = mine == tuple(shape), str(list(mine))
    if not fits:
        raise AdapterError(
            f'The adapter "{adapter}" changes {name} as {wanted}, but the tensor is {list(shape)}; '
            f"{'resize the base as it was for training' if re.search('embed|head|wte', name) else 'name its own base'}."
        )
