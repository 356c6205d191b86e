"""Roles and parts by the names and shapes that transformers writes, and views that give back what they were made of."""

from __future__ import annotations

import pytest
import torch

from umaf.merging.planning.jobs import Parts
from umaf.merging.planning.outline import outline
from umaf.merging.planning.roles import counts_tokens, parts_of, role
from umaf.merging.running.views import join, pieces

PHI3, MIXTRAL = {"model_type": "phi3"}, {"model_type": "mixtral"}
ATTENTION = {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 16}
ROLES = [
    ("model.embed_tokens.weight", (50, 16), "embedding"),
    ("lm_head.weight", (50, 16), "head"),
    ("model.layers.0.self_attn.q_proj.weight", (16, 16), "matrix"),
    ("model.layers.0.self_attn.q_proj.bias", (16,), "vector"),
    ("model.layers.0.block_sparse_moe.experts.1.w1.weight", (24, 16), "matrix"),
    ("model.layers.0.block_sparse_moe.gate.weight", (2, 16), "matrix"),
    ("model.layers.0.block_sparse_moe.input_linear.weight", (2, 48, 16), "matrix"),
    ("model.layers.0.mlp.experts.gate_up_proj", (2, 48, 16), "matrix"),
    ("model.layers.0.mlp.experts.gate_up_proj_bias", (2, 48), "vector"),
    ("model.layers.0.self_attn.rotary_emb.inv_freq", (4,), "buffer"),
    ("transformer.h.0.attn.bias", (1, 1, 32, 32), "buffer"),
    ("transformer.h.0.attn.c_attn.weight", (16, 48), "matrix"),
    ("transformer.wpe.weight", (32, 16), "embedding"),
    ("bert.embeddings.position_ids", (1, 32), "buffer"),
    ("bert.embeddings.word_embeddings.weight", (50, 16), "embedding"),
    ("bert.embeddings.LayerNorm.weight", (16,), "vector"),
    ("bert.encoder.layer.0.output.dense.weight", (16, 24), "matrix"),
    ("bert.pooler.dense.weight", (16, 16), "head"),
    ("cls.predictions.transform.dense.weight", (16, 16), "head"),
    ("classifier.weight", (2, 16), "head"),
    ("shared.weight", (50, 16), "embedding"),
    ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", (32, 4), "embedding"),
    ("decoder.block.0.layer.2.DenseReluDense.wo.weight", (16, 24), "matrix"),
    ("embed_out.weight", (50, 16), "head"),
    ("model.decoder.project_in.weight", (16, 8), "head"),
    ("backbone.layers.0.mixer.conv1d.weight", (32, 1, 4), "conv"),
    ("backbone.layers.0.mixer.A_log", (32, 4), "vector"),
    ("vision.patch_embedding.weight", (16, 3, 4, 4), "conv"),
    ("electra.embeddings_project.weight", (16, 8), "head"),
]


@pytest.mark.parametrize(("name", "shape", "expected"), ROLES)
def test_roles(name, shape, expected):
    assert role(name, shape) == expected


def test_without_layers_every_matrix_counts():
    assert role("anything", (4, 6), blocks=False) == "matrix"
    assert role("lm_head.weight", (4, 6), blocks=False) == "head"
    assert role("anything", (4, 6)) == "head"


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("model.embed_tokens.weight", True),
        ("lm_head.weight", True),
        ("lm_head.bias", True),
        ("cls.predictions.bias", True),
        ("transformer.wte.weight", True),
        ("backbone.embeddings.weight", True),
        ("transformer.wpe.weight", False),
        ("bert.embeddings.token_type_embeddings.weight", False),
        ("model.layers.0.mlp.shared.weight", False),
    ],
)
def test_what_counts_tokens(name, counts):
    assert counts_tokens(name) is counts


@pytest.mark.parametrize(
    ("name", "shape", "config", "parts"),
    [
        ("h.0.attn.c_attn.weight", (16, 48), {"model_type": "gpt2"}, Parts(True, True, (16, 16, 16))),
        ("h.0.mlp.c_proj.weight", (64, 16), {"model_type": "gpt2"}, Parts(True, True)),
        ("h.0.attn.c_attn.weight", (16, 48), None, Parts(True, True, (16, 16, 16))),
        ("h.0.attn.c_attn.weight", (24, 16), {"model_type": "gpt_bigcode", "n_head": 4, "n_embd": 16}, None),
        (
            "layers.0.self_attn.qkv_proj.weight",
            (32, 16),
            {**PHI3, **ATTENTION},
            Parts(True, sizes=(16, 8, 8)),
        ),
        ("layers.0.mlp.gate_up_proj.weight", (48, 16), PHI3, Parts(True, sizes=(24, 24))),
        (
            "layers.0.attention.query_key_value.weight",
            (48, 16),
            {"model_type": "gpt_neox", "num_attention_heads": 4, "hidden_size": 16},
            Parts(True, sizes=(4, 4, 4), groups=4),
        ),
        (
            "h.0.self_attention.query_key_value.weight",
            (32, 16),
            {"model_type": "falcon", "num_kv_heads": 2, "new_decoder_architecture": True, **ATTENTION},
            Parts(True, sizes=(8, 4, 4), groups=2),
        ),
        (
            "h.0.self_attention.query_key_value.weight",
            (24, 16),
            {"model_type": "falcon", "multi_query": True, "num_attention_heads": 4, "hidden_size": 16},
            Parts(True, sizes=(16, 4, 4)),
        ),
        ("layers.0.attention.wqkv.weight", (32, 16), ATTENTION, Parts(True, sizes=(8, 4, 4), groups=2)),
        (
            "layers.0.mlp.experts.gate_up_proj",
            (2, 48, 16),
            MIXTRAL,
            Parts(True, sizes=(24, 24), experts=2),
        ),
        (
            "layers.0.mlp.experts.gate_up_proj",
            (2, 16, 48),
            {"model_type": "gpt_oss"},
            Parts(True, True, (1, 1), groups=24, experts=2),
        ),
        (
            "layers.0.mlp.experts.down_proj",
            (2, 24, 16),
            {"model_type": "llama4_text"},
            Parts(True, True, experts=2),
        ),
        ("layers.0.mlp.up_proj.weight", (24, 16), None, Parts(True)),
        ("norm.weight", (16,), None, Parts()),
    ],
)
def test_parts(name, shape, config, parts):
    found = parts_of(name, shape, config)
    if parts is not None:
        assert found == parts
    assert not found.transposed or parts is not None
    stack = torch.arange(2.0 * torch.Size(shape).numel()).reshape(2, *shape)
    shown = pieces(stack, found)
    assert torch.equal(join(shown, found), stack)
    assert torch.equal(join([piece[0] for piece in shown], found), stack[0])
    if found.sizes:
        assert [piece.shape[-2] for piece in shown] == [size * found.groups for size in found.sizes]


def test_heads_that_lie_one_after_another_are_taken_apart():
    rows = torch.tensor([10 * head + part for head in range(3) for part in (0, 1, 2)]).reshape(9, 1)
    shown = pieces(rows, Parts(True, sizes=(1, 1, 1), groups=3))
    assert [piece.flatten().tolist() for piece in shown] == [[0, 10, 20], [1, 11, 21], [2, 12, 22]]


def test_layers_are_found_by_names():
    names = ["h.0.w", "h.1.w", "head.0.weight", "experts.w"]
    assert outline(names).prefix == "h." and outline(names).stacks == {"h.": 2}
    towers = [f"vision.layers.{n}.w" for n in range(3)] + [f"text.layers.{n}.w" for n in range(2)]
    assert outline(towers, {"text_config": {"num_hidden_layers": 2}}).prefix == "text.layers."
    assert outline(["classifier.0.weight", "classifier.1.weight"]).prefix == ""
