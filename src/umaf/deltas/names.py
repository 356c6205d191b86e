"""Names of modules in memory, as adapters have them, and names of tensors in files: the ways in which they differ."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from umaf.checkpoints import Checkpoint
from umaf.errors import AdapterError

_CONV1D = re.compile(r"(^|\.)(c_attn|q_attn|c_fc|c_proj)\.weight$")
_CONV1D_MODELS = {"gpt2", "openai-gpt", "imagegpt", "decision_transformer"}
TRANSPOSED_EXPERTS = {"llama4", "llama4_text", "gpt_oss"}
_TABLES = ("embed_tokens", "wte", "word_embeddings", "embed_in", "shared", "tok_embeddings")
_HEADS = re.compile(r"(^|\.)(lm_head|embed_out|predictions\.decoder)\.weight$")
_TABLE = re.compile(rf"(^|\.)({'|'.join(_TABLES)})\.weight$")
_HAS_HEAD = re.compile(r"For(CausalLM|ConditionalGeneration|MaskedLM|PreTraining)$|LMHead|DoubleHeads")
# Prefixes that checkpoints written by a bare model lack, and those of a model with a head have.
_PREFIXES = (
    "model",
    "transformer",
    "bert",
    "roberta",
    "distilbert",
    "electra",
    "mpnet",
    "gpt_neox",
    "encoder",
)
# In memory: a module of stacked experts. In files: experts one by one, under either name, with these leaves.
EXPERTS = {
    "block_sparse_moe.experts": {"gate_up_proj": ("w1", "w3"), "down_proj": ("w2",)},
    "mlp.experts": {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)},
}


class Names:
    """Finds the tensor of a checkpoint that an adapter means.

    Attributes:
        adapter: for messages.
        checkpoint: None gives every name back as it is.

    Example:
        >>> Names("x", None).find("layers.0.up.weight")
        'layers.0.up.weight'
    """

    def __init__(self, adapter: str, checkpoint: Checkpoint | None) -> None:
        self.adapter = adapter
        self.checkpoint = checkpoint
        self.entries = checkpoint.entries if checkpoint is not None else {}
        kind = str(((checkpoint.config if checkpoint is not None else None) or {}).get("model_type", ""))
        self.transposed_experts = kind in TRANSPOSED_EXPERTS

    def find(self, name: str, *, tied: Collection[str] = ()) -> str | None:
        """Find a tensor.

        Args:
            name: of a parameter in memory.
            tied: tables that also serve as the head; None is given for a head that is one of them.

        Raises:
            AdapterError: the checkpoint has no such tensor, or several that could be meant.
        """
        if self.checkpoint is None or name in self.entries:
            return name
        for other in _spellings(name):
            if other in self.entries:
                return other
        found = [f"{prefix}.{name}" for prefix in _PREFIXES if f"{prefix}.{name}" in self.entries]
        if len(found) == 1:
            return found[0]
        if not found and _HEADS.search(name) and (tied or self._ties()):
            if tied:
                return None
            raise AdapterError(
                f'The adapter "{self.adapter}" changes {name}, which its base {self.checkpoint.name} ties to its '
                "embeddings; save the base with its head untied first."
            )
        raise AdapterError(
            f'The adapter "{self.adapter}" changes {name}, but {self.checkpoint.name} has '
            f"{'no such tensor' if not found else 'several: ' + ', '.join(found)}; name the adapter's own base."
        )

    def experts(self, name: str) -> list[tuple[str, ...]] | None:
        """Find the tensors, expert by expert, that are stacked in memory; None where the file stacks them too."""
        if self.checkpoint is None or name in self.entries:
            return None
        owner, _, leaf = name.rpartition(".")
        if not owner.endswith("mlp.experts"):
            return None
        for stored, leaves in EXPERTS.items():
            root = owner.removesuffix("mlp.experts") + stored
            found: list[tuple[str, ...]] = []
            while leaf in leaves:
                places = tuple(f"{root}.{len(found)}.{part}.weight" for part in leaves[leaf])
                if not all(place in self.entries for place in places):
                    break
                found.append(places)
            if found:
                return found
        return None

    def _ties(self) -> bool:
        return bool(tied_tables(self.checkpoint))


def _spellings(name: str) -> list[str]:
    """Give other names of a tensor in files: without the prefix of the model inside, and with older words."""
    first, _, rest = name.partition(".")
    others = [
        name.replace(".mlp.gate.weight", ".block_sparse_moe.gate.weight"),
        name.replace("predictions.decoder.bias", "predictions.bias"),
    ]
    if first in _PREFIXES:
        others.append(rest)
    return others


def tied_tables(checkpoint: Checkpoint | None) -> set[str]:
    """Name the embedding tables of a checkpoint that serve as its head too.

    Example:
        >>> from umaf.checkpoints import open_checkpoint
        >>> tied_tables(open_checkpoint("zoo:gpt2-1m"))
        {'transformer.wte.weight'}
    """
    if checkpoint is None or checkpoint.config is None:
        return set()
    config = checkpoint.config
    kinds = [str(one) for one in config.get("architectures") or []]
    if not config.get("tie_word_embeddings", True) or any(_HEADS.search(name) for name in checkpoint.entries):
        return set()
    if not any(_HAS_HEAD.search(kind) for kind in kinds):
        return set()
    return {name for name in checkpoint.entries if _TABLE.search(name) and not re.search(r"\.\d+\.", name)}


def is_head(name: str) -> bool:
    """Tell whether a tensor is the matrix that turns hidden states into scores of tokens.

    Example:
        >>> is_head("lm_head.weight"), is_head("model.norm.weight")
        (True, False)
    """
    return bool(_HEADS.search(name))


def stored_transposed(delta: Sequence[int], stored: Sequence[int]) -> bool | None:
    """Tell by shapes whether a tensor is stored as `[in, out]`; None where they do not tell.

    Example:
        >>> stored_transposed((6, 2), (2, 6)), stored_transposed((6, 2), (6, 2)), stored_transposed((2, 2), (2, 2))
        (True, False, None)
    """
    if delta[-1] == delta[-2] and tuple(delta) == tuple(stored):
        return None
    return tuple(delta) == (*stored[:-2], stored[-1], stored[-2]) if len(stored) > 1 else False


def is_conv1d(name: str, config: Mapping[str, Any] | None, said: bool = False) -> bool:
    """Tell whether a weight is one of GPT-2's Conv1D modules, which store `[in, out]`.

    Args:
        name: of the tensor.
        config: of its model; without one, `said` holds.
        said: what the adapter's config has for fan_in_fan_out.

    Example:
        >>> is_conv1d("h.0.attn.c_proj.weight", {"model_type": "gpt2"})
        True
    """
    kind = str((config or {}).get("model_type", ""))
    return bool(_CONV1D.search(name)) and kind in _CONV1D_MODELS if kind else said
