"""LoRA folders, written and read: what is kept, and what is refused in one sentence."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from umaf.checkpoints import open_checkpoint
from umaf.deltas import LowRank, Target, lora, read_adapter, write_adapter
from umaf.deltas.adapter import WEIGHTS
from umaf.deltas.names import stored_transposed, tied_tables
from umaf.errors import AdapterError, OutputError
from umaf.files import sha256_file

NAME = "model.layers.0.self_attn.q_proj"


def some(seed=0, rank=2, shape=(6, 5), batch=()):
    made = torch.Generator().manual_seed(seed)
    a = torch.randn(*batch, rank, shape[1], generator=made)
    return LowRank(a, torch.randn(*batch, shape[0], rank, generator=made))


def plain(folder, **targets):
    targets = targets or {NAME: Target("linear", some())}
    return write_adapter(folder / "adapter", targets)


def edit(folder, *, weights=None, **config):
    """Change an adapter's config, and its weights by a function."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    if weights is not None:
        state = load_file(folder / WEIGHTS)
        weights(state)
        save_file(state, folder / WEIGHTS)
    return folder


def test_what_is_written_is_read(tmp_path):
    targets = {
        "layers.0.up": Target("linear", some(1, 3), bias=torch.arange(6.0)),
        "layers.1.up": Target("linear", some(2, 1)),
        "layers.11.up": Target("linear", some(3, 3)),
        "embed": Target("embedding", some(4, 2, (5, 9))),
        "layers.0.experts.gate_up_proj": Target("parameter", some(5, 3, (8, 5), (4,))),
        "layers.0.experts.down_proj": Target("parameter", some(6, 2, (5, 4), (4,))),
    }
    folder = write_adapter(tmp_path / "adapter", targets, base="org/base", record={"why": "test"})
    found = read_adapter(folder)
    assert found.base == "org/base" and set(found.targets) == set(targets)
    for name, target in targets.items():
        mine = found.targets[name]
        assert mine.kind == target.kind
        assert torch.allclose(mine.delta.dense(), target.delta.dense(), atol=1e-6), name
    assert torch.equal(found.targets["layers.0.up"].bias, torch.arange(6.0))
    assert not found.targets["layers.1.up"].bias.any()
    record = json.loads((folder / "umaf.json").read_text())
    assert record == {"why": "test", "shards": {WEIGHTS: sha256_file(folder / WEIGHTS)}}
    assert "org/base" in (folder / "README.md").read_text()


def test_names_that_end_alike_keep_their_ranks(tmp_path):
    ranks = {"layers.0.up": 1, "inner.layers.0.up": 2, "layers.1.up": 3, "layers.11.up": 4}
    targets = {name: Target("linear", some(rank, rank)) for name, rank in ranks.items()}
    found = read_adapter(write_adapter(tmp_path / "adapter", targets))
    assert {name: target.delta.rank for name, target in found.targets.items()} == ranks
    patterns = found.config["rank_pattern"]
    assert "layers.1.up" in patterns and "layers.0.up" not in patterns


def test_equal_updates_give_equal_files(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        plain(tmp_path / name)
    for file in ("adapter_config.json", WEIGHTS, "README.md"):
        assert (tmp_path / "one/adapter" / file).read_bytes() == (
            tmp_path / "two/adapter" / file
        ).read_bytes()


def test_a_folder_that_exists_is_left_alone(tmp_path):
    plain(tmp_path)
    with pytest.raises(OutputError):
        plain(tmp_path)


def test_a_key_with_the_adapters_name_in_it_is_read(tmp_path):
    def rename(state):
        for key in list(state):
            state[key.replace(".weight", ".default.weight")] = state.pop(key)

    folder = edit(plain(tmp_path), weights=rename)
    assert torch.allclose(read_adapter(folder).targets[NAME].delta.dense(), some().dense())


def test_bfloat16_and_a_fractional_alpha_are_read(tmp_path):
    def halve(state):
        for key in state:
            state[key] = state[key].bfloat16()

    folder = edit(plain(tmp_path), weights=halve, lora_alpha=0.5, use_rslora=True)
    found = read_adapter(folder).targets[NAME].delta
    assert found.a.dtype == torch.float32
    assert torch.allclose(found.dense(), some().dense() * 0.5 / 2**0.5, rtol=0.05, atol=0.05)


BAD_CONFIGS = {
    "another type": ({"peft_type": "ADALORA"}, "ADALORA"),
    "no type": ({"peft_type": None}, "None"),
    "a rank that is not there": ({"r": 7}, "rank 7"),
    "a pattern that is not there": ({"rank_pattern": {"q_proj": 1}}, "rank 1"),
    "changed base": ({"init_lora_weights": "pissa_niter_4"}, "pissa"),
    "changed base, in capitals": ({"init_lora_weights": "CorDA"}, "CorDA"),
    "quantised": ({"use_qalora": True}, "use_qalora"),
    "blocks": ({"use_bdlora": {"nblocks": 2}}, "use_bdlora"),
    "singular values": ({"kasa_config": {"x": 1}}, "kasa_config"),
    "stacked layers": ({"layer_replication": [[0, 2]]}, "layer_replication"),
    "activated by tokens": ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
    "what nobody knows yet": ({"use_next_lora": True}, "use_next_lora"),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_configs_that_are_refused(case, tmp_path):
    change, word = BAD_CONFIGS[case]
    _told(edit(plain(tmp_path), **change), word)


def _drop(state):
    state.pop(f"base_model.model.{NAME}.lora_B.weight")


def _no_prefix(state):
    for key in list(state):
        state[key.removeprefix("base_model.model.")] = state.pop(key)


def _nan(state):
    state[f"base_model.model.{NAME}.lora_A.weight"][0, 0] = float("nan")


def _conv(state):
    for key in state:
        state[key] = state[key][..., None, None].clone()


def _other(state):
    state[f"base_model.model.{NAME}.lora_diag"] = torch.ones(2)


def _tokens(state):
    state["base_model.model.embed.token_adapter.trainable_tokens_delta"] = torch.ones(2, 5)


BAD_WEIGHTS = {
    "a factor is missing": (_drop, "two factors"),
    "no prefix": (_no_prefix, "begin with"),
    "no number": (_nan, "NaN"),
    "a convolution": (_conv, "convolution"),
    "an unknown part": (_other, "lora_diag"),
    "tokens nobody named": (_tokens, "tokens"),
}


@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_weights_that_are_refused(case, tmp_path):
    change, word = BAD_WEIGHTS[case]
    _told(edit(plain(tmp_path), weights=change), word)


def test_folders_that_are_refused(tmp_path):
    _told(tmp_path / "absent", "no such folder")
    _told(tmp_path, "no adapter_config.json")
    (tmp_path / "outer").mkdir()
    inner = plain(tmp_path / "outer")
    _told(tmp_path / "outer", "subfolder adapter")
    (inner / WEIGHTS).write_bytes(b"no weights")
    _told(inner, "cannot be read")
    (inner / WEIGHTS).rename(inner / "adapter_model.bin")
    _told(inner, "pickled")
    (inner / "adapter_config.json").write_text("{")
    _told(inner, "cannot be read")


def test_parameters_in_an_unknown_order_are_refused(tmp_path):
    folder = edit(plain(tmp_path), target_parameters=["self_attn.q_proj.one", "self_attn.q_proj.two"])
    _told(folder, "order")


def test_an_adapter_that_does_not_fit_its_base(tmp_path):
    base = open_checkpoint("zoo:llama-1m")
    with pytest.raises(AdapterError, match=r"\[6, 5\].*\[128, 128\]"):
        lora(plain(tmp_path), base)
    other = write_adapter(tmp_path / "other", {"model.layers.9.q": Target("linear", some())})
    with pytest.raises(AdapterError, match=r"model.layers.9.q.weight, but .*llama-1m has no such tensor"):
        lora(other, base)


def test_a_mixture_with_other_experts(tmp_path):
    name = "model.layers.0.mlp.experts.down_proj"
    folder = write_adapter(tmp_path / "a", {name: Target("parameter", some(0, 2, (128, 256), (3,)))})
    with pytest.raises(AdapterError, match=r"3 experts.*has 4"):
        lora(folder, open_checkpoint("zoo:mixtral-1m"))


def test_nothing_and_magnitudes_cannot_be_written(tmp_path):
    for targets in ({}, {"up": Target("linear", some(), magnitude=torch.ones(6))}):
        with pytest.raises(AdapterError):
            write_adapter(tmp_path / "adapter", targets)
        assert not (tmp_path / "adapter").exists()


def test_a_tensor_that_is_not_changed_comes_back_as_it_is(tmp_path):
    found, weight = lora(plain(tmp_path)), torch.ones(2)
    assert found.apply("model.norm.weight", weight) is weight
    assert found.low_rank(f"{NAME}.weight").delta.rank == 2 and found.low_rank("model.norm.weight") is None
    before = torch.zeros(6, 5)
    assert found.apply(f"{NAME}.weight", before).any() and not before.any()


def test_how_a_tensor_lies():
    assert stored_transposed((4, 6, 2), (4, 2, 6)) and not stored_transposed((4, 6, 2), (4, 6, 2))
    assert stored_transposed((4, 2, 2), (4, 2, 2)) is None
    assert tied_tables(open_checkpoint("zoo:t5-1m")) == {"shared.weight"}
    assert tied_tables(open_checkpoint("zoo:bert-1m")) == {"bert.embeddings.word_embeddings.weight"}


def _told(folder, word):
    with pytest.raises(AdapterError) as told:
        read_adapter(folder)
    text = str(told.value)
    assert word in text and text.endswith(".") and "\n" not in text
