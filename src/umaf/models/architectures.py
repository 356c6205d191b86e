"""One table of what umaf has to know about each architecture.

The key is ``config.model_type``. Everything is a name that appears in the public state dict of the
model, never a class of ``transformers``: those moved before and will move again.

A package adds an architecture with an entry point in the group ``umaf.architectures`` whose name is
the ``model_type`` and whose object is a :class:`Family`. A type that nobody describes is looked at
directly (:func:`family_of`): its longest ``ModuleList`` holds the layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Literal

from torch import nn
from transformers import PreTrainedModel

from umaf.errors import ModelError, RegistryError

Kind = Literal["decoder", "encoder", "encoder-decoder"]


@dataclass(frozen=True)
class Family:
    """What umaf knows about one architecture.

    Attributes:
        kind: how the model reads: left to right, both ways, or one stack after the other.
        layers: dotted paths of the layer lists, relative to the base model (without its head).
            The first is the stack that reads the text.
        linear: last parts of the names of the linear modules that a LoRA may adapt.
        conv1d: the linear modules are GPT-2's ``Conv1D``, which store ``[in, out]``.
        experts: last parts of the names of 3-D parameters that stack one matrix per expert, in the
            order the module declares them.
        window: name of the config entry with the number of positions; None when unlimited.
        window_offset: positions that the window counts but a text cannot use.
        masked: the model honours the attention mask; False for recurrent ones, which read padding.
        source_only: the model can give a capability but cannot receive an adapter.
    """

    kind: Kind
    layers: tuple[str, ...]
    linear: tuple[str, ...]
    conv1d: bool = False
    experts: tuple[str, ...] = ()
    window: str | None = "max_position_embeddings"
    window_offset: int = 0
    masked: bool = True
    source_only: bool = False


_ATTENTION = tuple(f"self_attn.{part}_proj" for part in "qkvo")
_GATED = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
_BERT = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
_T5 = tuple(f"{block}.{part}" for block in ("SelfAttention", "EncDecAttention") for part in "qkvo") + tuple(
    f"DenseReluDense.{part}" for part in ("wi", "wi_0", "wi_1", "wo")
)
_LLAMA = Family("decoder", ("layers",), _ATTENTION + _GATED)
# PEFT renames anything that ends in `gate_proj`, `up_proj` or `down_proj` inside mixture models to
# the stacked parameters, so their shared expert's own linear modules are left alone here.
_MIXTURE = Family(
    "decoder", ("layers",), _ATTENTION, experts=("mlp.experts.gate_up_proj", "mlp.experts.down_proj")
)

FAMILIES: dict[str, Family] = {
    "bert": Family("encoder", ("encoder.layer",), _BERT),
    "electra": Family("encoder", ("encoder.layer",), _BERT),
    "roberta": Family("encoder", ("encoder.layer",), _BERT, window_offset=2),
    "xlm-roberta": Family("encoder", ("encoder.layer",), _BERT, window_offset=2),
    "mpnet": Family(
        "encoder",
        ("encoder.layer",),
        tuple(f"attention.attn.{part}" for part in "qkvo") + ("intermediate.dense", "output.dense"),
        window_offset=2,
    ),
    "distilbert": Family(
        "encoder",
        ("transformer.layer",),
        tuple(f"attention.{part}_lin" for part in ("q", "k", "v", "out")) + ("ffn.lin1", "ffn.lin2"),
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma": _LLAMA,
    "gemma2": _LLAMA,
    "phi3": Family(
        "decoder",
        ("layers",),
        ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"),
    ),
    "phi": Family(
        "decoder",
        ("layers",),
        tuple(f"self_attn.{part}" for part in ("q_proj", "k_proj", "v_proj", "dense"))
        + ("mlp.fc1", "mlp.fc2"),
    ),
    "opt": Family(
        "decoder",
        ("decoder.layers",),
        tuple(f"self_attn.{part}_proj" for part in ("q", "k", "v", "out")) + ("fc1", "fc2"),
    ),
    "gpt2": Family("decoder", ("h",), ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"), conv1d=True),
    "gpt_neox": Family(
        "decoder",
        ("layers",),
        ("attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    ),
    "t5": Family("encoder-decoder", ("encoder.block", "decoder.block"), _T5, window=None),
    "mt5": Family("encoder-decoder", ("encoder.block", "decoder.block"), _T5, window=None),
    # Of a model that also sees, the language model inside: what is asked and adapted is text.
    "llava": Family("decoder", ("language_model.layers",), _ATTENTION + _GATED, window=None),
    "mixtral": _MIXTURE,
    "qwen2_moe": _MIXTURE,
    "rwkv": Family(
        "decoder",
        ("blocks",),
        tuple(f"attention.{part}" for part in ("key", "value", "receptance", "output"))
        + tuple(f"feed_forward.{part}" for part in ("key", "value", "receptance")),
        window=None,
        masked=False,
        source_only=True,
    ),
}


def family_of(net: PreTrainedModel) -> Family:
    """Finds the table's row for a model, an entry point's, or looks at the model itself.

    Args:
        net: any model of ``transformers``, with or without a head.

    Returns:
        The family.

    Raises:
        RegistryError: an entry point claims a name that the table or another package already has.
        ModelError: the type is unknown and the model has no list of layers to look at.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> net = BertModel(BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2))
        >>> family_of(net).layers
        ('encoder.layer',)
    """
    model_type = str(net.config.model_type)
    claims = [point for point in entry_points(group="umaf.architectures") if point.name == model_type]
    owners = [point.value for point in claims] + (["umaf"] if model_type in FAMILIES else [])
    if len(owners) > 1:
        raise RegistryError(
            f'The architecture "{model_type}" is described by {" and ".join(owners)}; uninstall one.'
        )
    if claims:
        return claims[0].load()
    return FAMILIES[model_type] if model_type in FAMILIES else _look(net, model_type)


def _look(net: PreTrainedModel, model_type: str) -> Family:
    """The fallback for unknown types: the longest ``ModuleList`` of equal classes holds the layers."""
    lists = [
        (name, module)
        for name, module in net.base_model.named_modules()
        if isinstance(module, nn.ModuleList) and len({type(layer) for layer in module}) == 1
    ]
    if not lists:
        raise ModelError(
            f'The architecture "{model_type}" is not in umaf\'s table and has no list of layers to read hidden '
            "states from; describe it with an entry point in the group umaf.architectures."
        )
    # max() keeps the first of equals, and named_modules lists an outer list before the lists inside it.
    path, layers = max(lists, key=lambda item: len(item[1]))
    # GPT-2's Conv1D is known by its name; its place inside the library is not public.
    found = {
        name: type(module).__name__ == "Conv1D"
        for name, module in layers[0].named_modules()
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
    }
    classes = [type(net).__name__, *(net.config.architectures or [])]
    left_to_right = any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in classes)
    kind: Kind = "decoder" if left_to_right or getattr(net.config, "is_decoder", False) else "encoder"
    return Family(
        kind="encoder-decoder" if net.config.is_encoder_decoder else kind,
        layers=(path,),
        linear=tuple(found),
        conv1d=any(found.values()),
        source_only=not found,
    )
