"""What a tensor is for, told by its name and shape: the names are those of Hugging Face checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from umaf.merging.planning.jobs import Parts

ROLES = ("matrix", "vector", "embedding", "head", "conv", "buffer")
"""matrix: of a linear layer in a block; vector: norms, biases, scalars; embedding: tables; head: other matrices."""

_BUFFERS = "inv_freq|cos_cached|sin_cached|position_ids|token_type_ids|masked_bias|num_batches_tracked"
_BUFFER = re.compile(rf"(^|\.)({_BUFFERS})$")
_CAUSAL = re.compile(r"(^|\.)(attn|attention)\.bias$")
_TOKEN_TABLES = (
    "embed_tokens|embed_tokens_per_layer|wte|word_embeddings|embed_in|tok_embeddings|tokens_embed|shared"
)
_TOKENS = re.compile(rf"(^|\.)({_TOKEN_TABLES})\.weight$|^(backbone\.)?embeddings\.weight$")
_TABLE = re.compile(r"(^|\.)(\w*embed\w*|wte|wpe|shared|relative_attention_bias)\.weight$")
_HEADS = re.compile(r"(^|\.)((lm_head|embed_out|predictions\.decoder)\.(weight|bias)|predictions\.bias)$")
_TOP_HEADS = re.compile(r"^(output|head)\.weight$")
_NOT_LINEAR = re.compile(r"(^|\.)(A_log|layer_scale\w*|time_\w+|\w*bias|\w*[nN]orm\w*)$")
_CONV1D = re.compile(r"(^|\.)(c_attn|q_attn|c_fc|c_proj)\.weight$")
_EXPERTS = re.compile(r"expert|moe\.")
_CONV1D_MODELS = {"gpt2", "openai-gpt", "imagegpt", "decision_transformer"}
_TRANSPOSED_EXPERTS = {"llama4", "llama4_text", "gpt_oss"}


def in_block(name: str) -> bool:
    """Tell whether a name has the number of a layer in it.

    Example:
        >>> in_block("model.layers.3.mlp.up_proj.weight"), in_block("lm_head.weight")
        (True, False)
    """
    return re.search(r"\.\d+\.", f".{name}") is not None


def counts_tokens(name: str) -> bool:
    """Tell whether axis 0 of a tensor counts the tokens of the vocabulary, by its name.

    Example:
        >>> counts_tokens("model.embed_tokens.weight"), counts_tokens("transformer.wpe.weight")
        (True, False)
    """
    if in_block(name):
        return False
    return bool(_TOKENS.search(name) or _HEADS.search(name) or _TOP_HEADS.search(name))


def role(name: str, shape: tuple[int, ...], *, blocks: bool = True) -> str:
    """Tell what a tensor is for.

    Args:
        name: as in the state dict.
        shape: as stored.
        blocks: the checkpoint has numbered layers. Where it has none (a file of a few tensors), every matrix that is
            no embedding and no head counts as one of a linear layer.

    Returns:
        One of `ROLES`. "matrix" is the weight of a linear layer inside a block, stacks of experts included.

    Example:
        >>> role("model.layers.0.mlp.up_proj.weight", (16, 8)), role("model.norm.weight", (8,))
        ('matrix', 'vector')
        >>> role("pooler.dense.weight", (8, 8)), role("w", (8, 8), blocks=False)
        ('head', 'matrix')
    """
    if _BUFFER.search(name) or (_CAUSAL.search(name) and len(shape) > 2):
        return "buffer"
    if len(shape) < 2 or (len(shape) == 2 and 1 in shape):
        return "vector"
    if len(shape) > 2:
        return "matrix" if len(shape) == 3 and _EXPERTS.search(name) else "conv"
    last = name.removesuffix(".weight")
    if _TABLE.search(name) and not _HEADS.search(name) and "proj" not in last.rpartition(".")[2]:
        return "embedding"
    if not in_block(name):
        return "head" if blocks or _HEADS.search(name) or _TOP_HEADS.search(name) else "matrix"
    return "vector" if _NOT_LINEAR.search(last) else "matrix"


def parts_of(
    name: str, shape: tuple[int, ...], config: Mapping[str, Any] | None, *, blocks: bool = True
) -> Parts:
    """Tell how a tensor is shown to a method that wants matrices `[out, in]`.

    Args:
        name: as in the state dict.
        shape: as stored.
        config: config.json of its model; None goes by shapes alone.
        blocks: see `role`.

    Example:
        >>> parts_of("h.0.attn.c_attn.weight", (8, 24), {"model_type": "gpt2"})
        Parts(matrix=True, transposed=True, sizes=(8, 8, 8), groups=1, experts=0)
        >>> parts_of("model.layers.0.mlp.gate_up_proj.weight", (32, 8), {"model_type": "phi3"}).sizes
        (16, 16)
    """
    if role(name, shape, blocks=blocks) != "matrix":
        return Parts()
    known: Mapping[str, Any] = config or {}
    known = known.get("text_config") or known
    kind = str(known.get("model_type", ""))
    experts = shape[0] if len(shape) == 3 else 0
    transposed = kind in _TRANSPOSED_EXPERTS if experts else _is_conv1d(name, shape, kind)
    rows = shape[-1] if transposed else shape[-2]
    groups, sizes = _fused(name.removesuffix(".weight").rpartition(".")[2], rows, kind, _heads(known))
    if len(sizes) < 2 or sum(sizes) * groups != rows:
        groups, sizes = 1, ()
    return Parts(matrix=True, transposed=transposed, sizes=sizes, groups=groups, experts=experts)


def vectors_are_rows(kind: str, parts: Parts) -> bool:
    """Tell whether the vectors of a tensor are its rows and not its columns.

    Example:
        >>> vectors_are_rows("embedding", Parts()), vectors_are_rows("matrix", Parts(matrix=True))
        (True, False)
    """
    return kind == "embedding" or parts.transposed


def _is_conv1d(name: str, shape: tuple[int, ...], kind: str) -> bool:
    if not _CONV1D.search(name):
        return False
    if kind:
        return kind in _CONV1D_MODELS
    # Without a config: GPT-2 stores [in, out], so what widens has more columns; a square one is taken for GPT-2's.
    widens = _CONV1D.search(name).group(2) != "c_proj"  # type: ignore[union-attr]
    return shape[1] >= shape[0] if widens else shape[0] >= shape[1]


def _heads(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """Give (query heads, key and value heads, entries per head); zeros where the config does not tell."""
    heads = config.get("num_attention_heads") or config.get("n_head") or config.get("num_heads") or 0
    width = config.get("hidden_size") or config.get("n_embd") or config.get("d_model") or 0
    said = (config.get(key) for key in ("num_key_value_heads", "multi_query_group_num", "num_kv_heads"))
    keys = next((one for one in said if one), heads)
    if config.get("multi_query") and not config.get("new_decoder_architecture"):
        keys = 1
    size = config.get("head_dim") or config.get("kv_channels") or (width // heads if heads else 0)
    return int(heads), int(keys), int(size)


def _fused(last: str, rows: int, kind: str, heads: tuple[int, int, int]) -> tuple[int, tuple[int, ...]]:
    """Give (groups, sizes) of the matrices that are one behind another in a fused one."""
    query, keys, size = heads
    if (
        "gate_up" in last
        or last in {"Wi", "input_linear"}
        or (last == "dense_h_to_4h" and kind.startswith("chatglm"))
    ):
        return (rows // 2, (1, 1)) if kind == "gpt_oss" else (1, (rows // 2, rows // 2))
    if last == "query_key_value" and not kind.startswith(("chatglm", "glm")):
        if kind == "falcon" and keys != query:
            return keys, (query // keys * size, size, size)
        return query, (size, size, size)
    if last == "wqkv" and keys:
        return keys, (query // keys * size, size, size)
    if last in {"qkv_proj", "query_key_value", "Wqkv", "qkv"} and query and rows == (query + 2 * keys) * size:
        return 1, (query * size, keys * size, keys * size)
    if last in {"c_attn", "qkv_proj", "Wqkv", "W_pack", "in_proj_weight", "qkv", "in_proj"} and rows % 3 == 0:
        # A state-space model's in_proj holds other things.
        return (1, ()) if last == "in_proj" and kind else (1, (rows // 3,) * 3)
    return 1, ()


@cache
def pattern_of(name: str) -> str:
    """Give a name with the numbers of layers and experts left out: tensors of one pattern have one role.

    Example:
        >>> pattern_of("model.layers.3.mlp.experts.12.w1.weight")
        'model.layers.#.mlp.experts.#.w1.weight'
    """
    return re.sub(r"(?<=\.)\d+(?=\.)", "#", name)
