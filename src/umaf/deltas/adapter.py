"""A LoRA folder in PEFT's format, read by PEFT's own names: factors with their scaling, and all else it stores."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from umaf.checkpoints.locate import locate
from umaf.deltas.lowrank import LowRank
from umaf.deltas.settings import parameter_of, rank_for, read_config, scaling_of
from umaf.errors import AdapterError, CheckpointError

WEIGHTS = "adapter_model.safetensors"
_ROOT = "base_model.model."
_KINDS = "lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector"
_FACTOR = re.compile(rf"^(.+)\.({_KINDS})(?:\.default)?(\.weight|\.bias)?$")
_TOKENS = re.compile(r"^(.+)\.token_adapter\.trainable_tokens_delta(?:\.default)?$")


@dataclass(frozen=True)
class Target:
    """What an adapter does to one module, or to one parameter.

    Attributes:
        kind: "linear", "embedding", or "parameter" (a parameter that is itself the target, as stacked experts are).
        delta: `[*expert, out, in]` with the scaling in b; an embedding's is `[width, token]`.
        magnitude: of DoRA, `[out]`: the lengths that the rows of the changed weight get.
        bias: what is added to the module's bias, `[out]`, scaled.
    """

    kind: Literal["linear", "embedding", "parameter"]
    delta: LowRank
    magnitude: Tensor | None = None
    bias: Tensor | None = None


@dataclass(frozen=True)
class Adapter:
    """A LoRA folder.

    Attributes:
        name: as it was asked for.
        config: `adapter_config.json`.
        targets: by module path, or by parameter path.
        whole: parameters that are stored whole (modules_to_save, trained biases), by name.
        frozen: copies of the weights under embeddings with factors, by name; PEFT adds them, training does not change
            them.
        tokens: rows of embeddings that are replaced: `(index [row], values [row, width])` by module path.
    """

    name: str
    config: Mapping[str, Any]
    targets: Mapping[str, Target]
    whole: Mapping[str, Tensor] = field(default_factory=dict)
    frozen: Mapping[str, Tensor] = field(default_factory=dict)
    tokens: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def base(self) -> str:
        """The model it was trained on, as its config names it; "" where it does not."""
        return str(self.config.get("base_model_name_or_path") or "")


def read_adapter(folder: str | Path, *, revision: str | None = None) -> Adapter:
    """Read a LoRA folder (or a hub id) that PEFT, or anything that writes its format, has made.

    Args:
        folder: with `adapter_config.json` and `adapter_model.safetensors`.
        revision: of a hub id.

    Returns:
        Everything in it, in float32. rsLoRA, patterns of ranks and alphas, DoRA, biases and stacked experts are in the
        numbers already.

    Raises:
        AdapterError: it is not there, is no LoRA, does not fit its own config, or holds what cannot be handled.

    Example:
        >>> import tempfile
        >>> from umaf.deltas.write import write_adapter
        >>> one = Target("linear", LowRank(torch.ones(1, 3), torch.ones(2, 1)))
        >>> place = write_adapter(Path(tempfile.mkdtemp()) / "adapter", {"layers.0.up": one})
        >>> read_adapter(place).targets["layers.0.up"].delta.shape
        (2, 3)
    """
    try:
        place = locate(str(folder), revision=revision)
    except CheckpointError as problem:
        raise AdapterError(f"The adapter was not found: {problem}") from None
    config = read_config(place)
    stored = _grouped(_load(place), place)
    targets = {}
    for module in sorted({module for module, _ in stored.factors}):
        name, target = _target(module, stored.factors, config, place)
        targets[name] = target
    tokens = {module: (_index(module, config, place), values) for module, values in stored.tokens.items()}
    for module, (index, values) in tokens.items():
        if index.numel() != values.shape[0]:
            raise AdapterError(
                f'The adapter "{place}" stores {values.shape[0]} tokens of {module}, but its config names '
                f"{index.numel()}; copy it again."
            )
    frozen = {
        name.replace(".base_layer", ""): one for name, one in stored.whole.items() if _is_copy(name, targets)
    }
    whole = {
        name.replace(".base_layer", ""): one
        for name, one in stored.whole.items()
        if not _is_copy(name, targets)
    }
    return Adapter(str(folder), config, targets, whole, frozen, tokens)


@dataclass(frozen=True)
class _Stored:
    factors: dict[tuple[str, str], Tensor]
    tokens: dict[str, Tensor]
    whole: dict[str, Tensor]


def _load(place: Path) -> dict[str, Tensor]:
    path = place / WEIGHTS
    if not path.is_file():
        pickled = (place / "adapter_model.bin").is_file()
        how = (
            "only a pickled adapter_model.bin; save it as safetensors"
            if pickled
            else f"no {WEIGHTS}; copy it again"
        )
        raise AdapterError(f'The adapter "{place}" has {how}.')
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as problem:
        raise AdapterError(
            f"The weights {path} cannot be read ({problem}); copy the adapter again."
        ) from None


def _grouped(state: Mapping[str, Tensor], place: Path) -> _Stored:
    found = _Stored({}, {}, {})
    for key, tensor in state.items():
        if not key.startswith(_ROOT):
            raise AdapterError(
                f'The adapter "{place}" holds {key}, but names begin with {_ROOT} there; save it with PEFT.'
            )
        if not bool(torch.isfinite(tensor).all()):
            raise AdapterError(
                f'The adapter "{place}" holds NaN or infinity in {key}; repair or leave it out.'
            )
        name = key.removeprefix(_ROOT)
        if match := _FACTOR.match(name):
            part = f"{match[2]}.bias" if match[3] == ".bias" else match[2]
            found.factors[match[1], part] = tensor.float()
        elif match := _TOKENS.match(name):
            found.tokens[match[1]] = tensor.float()
        elif ".lora_" in name:
            raise AdapterError(
                f'The adapter "{place}" holds {key}, which no LoRA of a known kind has; merge it with PEFT first.'
            )
        else:
            found.whole[re.sub(r"\.modules_to_save(\.default)?", "", name)] = tensor
    return found


def _target(
    module: str, factors: Mapping[tuple[str, str], Tensor], config: Mapping[str, Any], place: Path
) -> tuple[str, Target]:
    embedding = (module, "lora_embedding_A") in factors
    kinds = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A", "lora_B")
    a, b = (factors.get((module, kind)) for kind in kinds)
    if a is None or b is None:
        raise AdapterError(f'The adapter "{place}" lacks one of the two factors of {module}; copy it again.')
    if a.ndim != 2 or b.ndim != 2:
        raise AdapterError(
            f'The adapter "{place}" has factors of the shape {list(a.shape)} for {module}; no convolution can be read, '
            "so merge it into its base with PEFT first."
        )
    parameter = None if embedding else parameter_of(module, config, place)
    name = parameter or module
    rank = rank_for(name, config)
    if a.shape[0] != b.shape[1] or (a.shape[0] % rank if parameter else a.shape[0] != rank):
        raise AdapterError(
            f'The adapter "{place}" has factors {list(a.shape)} and {list(b.shape)} for {module}, but its config says '
            f"rank {rank}; PEFT could not load it either."
        )
    scaling = scaling_of(name, rank, config)
    b = b if scaling == 1 else b * scaling
    if parameter and a.shape[0] != rank:
        a, b = a.reshape(-1, rank, a.shape[1]), b.reshape(b.shape[0], rank, -1).permute(2, 0, 1).contiguous()
    bias = factors.get((module, "lora_B.bias"))
    magnitude = factors.get((module, "lora_magnitude_vector"))
    kind = "embedding" if embedding else "parameter" if parameter else "linear"
    return name, Target(
        kind, LowRank(a, b), None if magnitude is None else magnitude.reshape(-1), _scaled(bias, scaling)
    )


def _scaled(bias: Tensor | None, scaling: float) -> Tensor | None:
    return None if bias is None else bias * scaling


def _is_copy(name: str, targets: Mapping[str, Target]) -> bool:
    module, _, leaf = name.rpartition(".base_layer.")
    return leaf == "weight" and module in targets


def _index(module: str, config: Mapping[str, Any], place: Path) -> Tensor:
    said = config.get("trainable_token_indices")
    if isinstance(said, Mapping):
        said = next((rows for key, rows in said.items() if module == key or module.endswith(f".{key}")), None)
    if not isinstance(said, list):
        raise AdapterError(
            f'The adapter "{place}" stores tokens of {module}, but its config does not say which; copy it again.'
        )
    return torch.tensor(said, dtype=torch.int64)


def stack(delta: LowRank) -> tuple[Tensor, Tensor]:
    """Give the two matrices in which PEFT keeps factors of stacked experts; others as they are.

    Returns:
        A `[expert * rank, in]`, expert by expert, and B `[out, rank * expert]`, rank by rank.

    Example:
        >>> a, b = stack(LowRank(torch.zeros(4, 2, 5), torch.zeros(4, 3, 2)))
        >>> a.shape, b.shape
        (torch.Size([8, 5]), torch.Size([3, 8]))
    """
    if delta.a.ndim == 2:
        return delta.a, delta.b
    return delta.a.reshape(-1, delta.a.shape[-1]), delta.b.permute(1, 2, 0).reshape(delta.b.shape[1], -1)
