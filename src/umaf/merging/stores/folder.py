"""Stores on disk: experts go in tensor by tensor, and come back as checkpoints.

compress("emr", "org/base", {"maths": "org/maths", "code": "org/code"}, "store")
restore("store", "org/base", "maths-again", expert="maths")
"""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from umaf.checkpoints import Writer, begin, finish, identity, lay_out, torch_dtype
from umaf.errors import CheckpointError, ConfigError, NumericalError, UmafError, did_you_mean
from umaf.files import whole_folder, write_json
from umaf.merging.planning.jobs import Opened
from umaf.merging.planning.opening import open_models, open_ref
from umaf.merging.recipes.reference import parse_ref
from umaf.merging.stores.packer import Packer, packer_of

CARD = "store.json"
_FILE = "store-{:05d}.safetensors"
_TOTALS = "totals.safetensors"
# Between a tensor's name and its part's; no name of a tensor holds it.
_MARK = "//"
_FULL = 1_000_000_000
# Entries that go through a measuring pass at a time.
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Kept:
    """What a store takes.

    Attributes:
        folder: of the store.
        bytes: of its weights.
        bytes_of_experts: that the experts take as they are, in the base's number format.
    """

    folder: Path
    bytes: int
    bytes_of_experts: int


def compress(
    way: str,
    base: str,
    experts: Mapping[str, str],
    out: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    allow_pickle: bool = False,
) -> Kept:
    """Pack experts of one base into a store.

    Args:
        way: one of `PACKERS.names()`.
        base: hub id or folder that the experts were fine-tuned from.
        experts: each expert's model ("path", "hub id", or "model+lora") by the name it will be asked for by.
        out: a folder that is not there yet.
        options: of the way.
        allow_pickle: read .bin files too.

    Returns:
        The store's folder and what it takes.

    Raises:
        ConfigError: no expert, or an option that the way does not have.
        CheckpointError: the experts' tensors are not the base's.
        NumericalError: an expert holds NaN or infinity.
        OutputError: something is at `out`.
    """
    packer = packer_of(way)
    settings = _settings(packer, options or {})
    if not experts:
        raise ConfigError(f"{way} needs experts to pack; name at least one.")
    refs = [parse_ref(base), *map(parse_ref, experts.values())]
    ground, *models = open_models(refs, lambda ref: open_ref(ref, allow_pickle=allow_pickle))
    _check_alike(ground, models)
    names = [
        name for name, entry in ground.checkpoint.entries.items() if entry.numel and _floats(entry.dtype)
    ]

    measured = _measured(packer, ground, models, names, settings)
    given: dict[str, Any] = {"totals": measured} if packer.measure is not None else {}
    with whole_folder(out) as draft:
        shelf = _Shelf(draft)
        seen = []
        for name in names:
            if packer.keeps_numbers:
                given["dtype"] = _kept(ground.checkpoint.entries[name].dtype)
            parts = packer.pack(_deltas(ground, models, name), **given, **settings)
            seen.append({key: parts.pop(key) for key in packer.per_tensor})
            shelf.add(name, parts)
        shelf.flush()
        totals = {**measured, **(packer.total(seen) if packer.total is not None else {})}
        if totals:
            save_file({key: value.contiguous() for key, value in totals.items()}, draft / _TOTALS)
        whole = sum(ground.checkpoint.entries[name].size for name in names) * len(models)
        card = {
            "way": way,
            "source": packer.source,
            "options": settings,
            "experts": {name: str(ref) for name, ref in zip(experts, refs[1:], strict=True)},
            "base": {"name": str(refs[0]), "identity": identity(ground.checkpoint)},
            "tensors": len(names),
            "bytes": shelf.bytes,
            "bytes_of_experts": whole,
        }
        write_json(draft / CARD, card)
    return Kept(Path(out), shelf.bytes, whole)


def _measured(
    packer: Packer,
    ground: Opened,
    models: Sequence[Opened],
    names: Sequence[str],
    settings: Mapping[str, Any],
) -> dict[str, Tensor]:
    """Measure what a packer has to know of all tensors before it packs the first one."""
    if packer.measure is None:
        return {}

    def passes() -> Iterator[tuple[str, Tensor]]:
        for name in names:
            flat = _deltas(ground, models, name).flatten(1)
            for start in range(0, flat.shape[1], _CHUNK):
                yield name, flat[:, start : start + _CHUNK]

    known = inspect.signature(packer.measure).parameters
    wanted = {key: value for key, value in settings.items() if key in known}
    return packer.measure(passes, models=len(models), **wanted)


def restore(
    store: str | Path,
    base: str,
    out: str | Path,
    *,
    expert: str | None = None,
    weights: Mapping[str, float] | None = None,
) -> Path:
    """Write one expert of a store, or a mixture of them, as a checkpoint.

    Args:
        store: what `compress` made.
        base: the base it was made with.
        out: a folder that is not there yet, or empty.
        expert: name of one expert; or
        weights: how much of each, by name; experts that are not named get 0.

    Returns:
        The folder of the checkpoint, in the base's number format, with its config and tokenizer.

    Raises:
        ConfigError: not one of `expert` and `weights`, or a name the store does not have.
        CheckpointError: the folder is no store, or the base is another.
        OutputError: something is at `out`.
    """
    store = Path(store)
    card = _card(store)
    packer = packer_of(card["way"])
    share = _share(list(card["experts"]), expert, weights)
    ground = open_models([parse_ref(base)], open_ref)[0]
    if identity(ground.checkpoint) != card["base"]["identity"]:
        raise CheckpointError(
            f"{store} was made with the base {card['base']['name']}, and {base} holds other weights; give that base."
        )
    totals = load_file(store / _TOTALS) if (store / _TOTALS).is_file() else {}
    entries = ground.checkpoint.entries
    draft = begin(out)
    try:
        writer = Writer(draft, lay_out([(e.name, e.dtype, e.shape) for e in entries.values()]))
        try:
            packed = set()
            for name, parts in _packed(store):
                weight = _weight(ground, name)
                weight += packer.unpack(parts, share, entries[name].shape, totals)
                writer.slot(name).copy_(weight.reshape(-1))
                writer.done(name)
                packed.add(name)
            for name in set(entries) - packed:
                writer.slot(name).copy_(ground.checkpoint.flat(name))
                writer.done(name)
        finally:
            writer.close()
        _copy_beside(ground.checkpoint.folder, draft)
    except UmafError:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return finish(draft, out)


class _Shelf:
    """Parts gather until a file is full."""

    def __init__(self, folder: Path) -> None:
        self.bytes = 0
        self._folder, self._held, self._size, self._files = folder, {}, 0, 0

    def add(self, name: str, parts: Mapping[str, Tensor]) -> None:
        for key, part in parts.items():
            self._held[f"{name}{_MARK}{key}"] = part.contiguous()
            self._size += part.numel() * part.element_size()
        if self._size > _FULL:
            self.flush()

    def flush(self) -> None:
        if self._held:
            save_file(self._held, self._folder / _FILE.format(self._files))
            self.bytes += self._size
            self._files, self._held, self._size = self._files + 1, {}, 0


def _packed(store: Path) -> Iterator[tuple[str, dict[str, Tensor]]]:
    for path in sorted(store.glob("store-*.safetensors")):
        found: dict[str, dict[str, Tensor]] = {}
        for key, part in load_file(path).items():
            name, _, own = key.rpartition(_MARK)
            found.setdefault(name, {})[own] = part
        yield from found.items()


def _card(store: Path) -> dict[str, Any]:
    try:
        return json.loads((store / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise CheckpointError(
            f"{store} is no store of experts (no {CARD}); make one with umaf compress."
        ) from problem


def _share(names: Sequence[str], expert: str | None, weights: Mapping[str, float] | None) -> Tensor:
    if (expert is None) == (weights is None):
        raise ConfigError("Either one expert or weights of several are restored; give one of the two.")
    asked = {expert: 1.0} if expert is not None else dict(weights or {})
    for name in asked:
        if name not in names:
            raise ConfigError(
                f"The store has no expert {name}; it has {', '.join(names)}.{did_you_mean(name, names)}"
            )
    return torch.tensor([float(asked.get(name, 0.0)) for name in names])


def _settings(packer: Packer, options: Mapping[str, Any]) -> dict[str, Any]:
    known = packer.options
    for name in options:
        if name not in known:
            raise ConfigError(
                f"{packer.name} has no option {name}; it has {', '.join(known) or 'none'}.{did_you_mean(name, known)}"
            )
    return {name: known[name].check(packer.name, value) for name, value in options.items()}


def _check_alike(base: Opened, experts: Sequence[Opened]) -> None:
    own = base.checkpoint.entries
    for one in experts:
        theirs = one.checkpoint.entries
        for name in (*own, *theirs):
            if name not in own or name not in theirs:
                which = base.ref if name not in own else one.ref
                raise CheckpointError(
                    f"{which} has no tensor {name}, which the others have; pack experts of one base."
                )
            if own[name].shape != theirs[name].shape:
                raise CheckpointError(
                    f"{name} is {list(theirs[name].shape)} in {one.ref} and {list(own[name].shape)} in {base.ref}; "
                    "pack experts of one base."
                )


def _floats(dtype: str) -> bool:
    return torch_dtype(dtype).is_floating_point


def _kept(stored: str) -> torch.dtype:
    """Say in which format the numbers of a tensor are kept: the base's, of those that hold sums of deltas."""
    dtype = torch_dtype(stored)
    if dtype in {torch.float32, torch.float64}:
        return torch.float32
    return dtype if dtype == torch.float16 else torch.bfloat16


def _weight(model: Opened, name: str) -> Tensor:
    weight = model.checkpoint.read(name).to(torch.float32, copy=True)
    for lora in model.loras:
        if name in lora:
            weight = lora.apply(name, weight)
    model.checkpoint.release(name)
    return weight


def _deltas(base: Opened, experts: Sequence[Opened], name: str) -> Tensor:
    weight = _weight(base, name)
    found = torch.stack([_weight(one, name) - weight for one in experts])
    if not bool(torch.isfinite(found).all()):
        bad = next(
            one for one, delta in zip(experts, found, strict=True) if not bool(torch.isfinite(delta).all())
        )
        raise NumericalError(f"{bad.ref} or its base holds NaN or infinity in {name}; it cannot be packed.")
    return found


def _copy_beside(folder: Path, draft: Path) -> None:
    """Copy what is not weights: config, tokenizer, chat template."""
    for pattern in ("*.json", "*.txt", "*.model", "*.jinja"):
        for path in folder.glob(pattern):
            if not path.name.endswith(".index.json"):
                shutil.copyfile(path, draft / path.name)
