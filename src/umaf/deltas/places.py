"""Which stored tensors make which module that an adapter can change, under the name the module has in memory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from umaf.checkpoints import Checkpoint
from umaf.deltas.names import is_conv1d

_BLOCK = re.compile(r"(^|\.)\d+\.")
_HEAD = re.compile(r"(^|\.)(lm_head|embed_out)\.weight$")
_TABLE = re.compile(r"(^|\.)(\w*embed\w*|wte|wpe|shared|relative_attention_bias)\.weight$")
_ROUTER = re.compile(r"(^|\.)(block_sparse_moe|mlp)\.gate\.weight$")
_ONE_EXPERT = re.compile(
    r"^(.*\.)(?:block_sparse_moe|mlp)\.experts\.(\d+)\.(w1|w2|w3|gate_proj|up_proj|down_proj)\.weight$"
)
_STACK = re.compile(r"^(.*\.experts)\.(gate_up_proj|down_proj)$")
_STACKED_IN = {
    "w1": "gate_up_proj",
    "gate_proj": "gate_up_proj",
    "w3": "gate_up_proj",
    "up_proj": "gate_up_proj",
}
_SECOND = ("w3", "up_proj")
_TRANSPOSED_EXPERTS = {"llama4", "llama4_text", "gpt_oss"}
# Checkpoints of these, written by the bare model, are loaded into a model with a head all the same.
_INSIDE = {"gpt2": "transformer", "bloom": "transformer"}


@dataclass(frozen=True)
class Place:
    """A module, or a parameter that stacks experts, that an adapter can change.

    Attributes:
        name: in memory.
        kind: as in :class:`umaf.deltas.Target`.
        tensors: names in the file, one row per expert; several in a row are put one under the other.
        transposed: stored as `[*, in, out]`.
    """

    name: str
    kind: Literal["linear", "parameter"]
    tensors: tuple[tuple[str, ...], ...]
    transposed: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """All stored tensors."""
        return tuple(name for row in self.tensors for name in row)

    def read(self, checkpoint: Checkpoint) -> Tensor:
        """Give the weight in float32, `[out, in]` or `[expert, out, in]`; the file's pages are let go."""
        rows = [
            torch.cat([checkpoint.read(name).to(torch.float32, copy=True) for name in row])
            for row in self.tensors
        ]
        for name in self.names:
            checkpoint.release(name)
        whole = (
            rows[0] if (len(rows) == 1 and self.kind == "linear") or rows[0].ndim == 3 else torch.stack(rows)
        )
        return whole.mT if self.transposed else whole


def places_of(checkpoint: Checkpoint) -> list[Place]:
    """List what an adapter of low rank can change in a checkpoint: matrices of blocks, experts, and an untied head.

    Args:
        checkpoint: the base.

    Returns:
        In the order of the file. Embeddings, norms, convolutions and routers of mixtures are not among them.

    Example:
        >>> from umaf.checkpoints import open_checkpoint
        >>> places = places_of(open_checkpoint("zoo:mixtral-1m"))
        >>> places[0].name, places[0].kind, len(places[0].tensors)
        ('model.layers.0.mlp.experts.gate_up_proj', 'parameter', 4)
    """
    config = checkpoint.config or {}
    kind, tied = str(config.get("model_type", "")), bool(config.get("tie_word_embeddings"))
    experts: dict[str, dict[int, dict[str, str]]] = {}
    found: dict[str, Place | None] = {}
    for name, entry in checkpoint.entries.items():
        if match := _ONE_EXPERT.match(name):
            whole = f"{match[1]}mlp.experts.{_STACKED_IN.get(match[3], 'down_proj')}"
            experts.setdefault(whole, {}).setdefault(int(match[2]), {})[match[3]] = name
            found.setdefault(whole, None)
        elif _STACK.match(name) and len(entry.shape) == 3:
            found[name] = Place(name, "parameter", ((name,),), kind in _TRANSPOSED_EXPERTS)
        elif _is_linear(name, entry.shape) and not (tied and _HEAD.search(name)):
            module = name_in_memory(checkpoint, name).removesuffix(".weight")
            found[module] = Place(module, "linear", ((name,),), is_conv1d(name, checkpoint.config))
    return [place or _stacked(name, experts[name]) for name, place in found.items()]


def name_in_memory(checkpoint: Checkpoint, name: str) -> str:
    """Give the name of a parameter in the model that the checkpoint's config asks for.

    Example:
        >>> from umaf.checkpoints import open_checkpoint
        >>> name_in_memory(open_checkpoint("zoo:gpt2-1m"), "transformer.wte.weight")
        'transformer.wte.weight'
    """
    config: Mapping = checkpoint.config or {}
    inside = _INSIDE.get(str(config.get("model_type", "")))
    kinds = [str(one) for one in config.get("architectures") or []]
    with_head = any("LMHead" in one or "For" in one for one in kinds)
    if inside and with_head and not any(one.startswith(f"{inside}.") for one in checkpoint.entries):
        return name if _HEAD.search(name) else f"{inside}.{name}"
    return name


def _is_linear(name: str, shape: tuple[int, ...]) -> bool:
    if len(shape) != 2 or not name.endswith(".weight") or _TABLE.search(name) or _ROUTER.search(name):
        return False
    return bool(_BLOCK.search(name) or _HEAD.search(name)) and 1 not in shape


def _stacked(name: str, experts: Mapping[int, Mapping[str, str]]) -> Place:
    rows = [
        tuple(parts[leaf] for leaf in sorted(parts, key=lambda leaf: leaf in _SECOND))
        for _, parts in sorted(experts.items())
    ]
    return Place(name, "parameter", tuple(rows))
