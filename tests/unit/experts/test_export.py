"""An expert as a LoRA, as a checkpoint and compressed: the same function, and the loss that is told is the loss."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from umaf.adapters import weight_of
from umaf.errors import ExpertError, OutputError
from umaf.experts import attached, decompose, identity_expert, load_expert, save_expert
from umaf.experts.export import compress, merged, to_lora
from umaf.experts.packed import pack, unpack
from umaf.models import open_model, weights_hash
from umaf.models.quiet import quiet

IDS = torch.tensor([[9, 20, 31, 42, 53], [8, 17, 26, 35, 44]])
AUTO = {
    "encoder": AutoModelForMaskedLM,
    "decoder": AutoModelForCausalLM,
    "encoder-decoder": AutoModelForSeq2SeqLM,
}


def logits(net, kind="decoder"):
    more = {"decoder_input_ids": IDS.flip(1)} if kind == "encoder-decoder" else {}
    with torch.no_grad():
        return net(input_ids=IDS, **more).logits


def adapted(net, folder):
    with quiet():  # PEFT warns of its own affairs
        return PeftModel.from_pretrained(net, folder).eval()


def made(pico, model_type):
    model = open_model(pico(model_type))
    expert = identity_expert(model, "drawn")
    source = torch.Generator().manual_seed(2)
    z = {name: 0.5 + torch.rand(each.shape, generator=source) for name, each in expert.z.items()}
    return model, replace(expert, z=z), decompose(model, list(z))


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "bert", "t5", "mixtral"])
def test_a_whole_lora_in_peft_equals_the_attached_expert(pico, tmp_path, model_type):
    model, expert, factored = made(pico, model_type)
    found = to_lora(expert, model, factored, tmp_path / "lora")
    assert found.error == 0 and set(found.errors) == set(expert.z)
    plain = AUTO[model.kind].from_pretrained(pico(model_type))
    with attached(model, factored, expert.z):
        wanted = logits(model.net, model.kind)
    found = logits(adapted(plain, tmp_path / "lora"), model.kind)
    assert torch.allclose(found, wanted, atol=5e-4)
    assert not torch.allclose(wanted, logits(model.net, model.kind), atol=0.05)


def test_a_lora_of_a_rank_loses_what_it_says_and_nothing_loses_less(pico, tmp_path):
    model, expert, factored = made(pico, "llama")
    found = to_lora(expert, model, factored, tmp_path / "lora", rank=4)
    name = "model.layers.0.mlp.up_proj"
    f = factored[name]
    change = (f.u * (f.s * (expert.z[name] - 1))) @ f.vh
    from_peft = adapted(AutoModelForCausalLM.from_pretrained(pico("llama")), tmp_path / "lora")
    layer = from_peft.get_submodule(f"base_model.model.{name}")
    delta = layer.get_delta_weight("default").detach()
    lost = float((delta - change).norm() / change.norm())
    assert lost == pytest.approx(found.errors[name], rel=1e-4)
    values = torch.linalg.svdvals(change)
    assert lost == pytest.approx(float(values[4:].norm() / values.norm()), rel=1e-4)


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "mixtral"])
def test_a_merged_checkpoint_equals_the_attached_expert_and_the_base_stays(pico, tmp_path, model_type):
    model, expert, factored = made(pico, model_type)
    before = weights_hash(model)
    found = merged(expert, model, factored, tmp_path / "merged")
    assert weights_hash(model) == before and found.error < 1e-6
    with attached(model, factored, expert.z):
        wanted = logits(model.net)
    again = open_model(tmp_path / "merged")
    assert torch.allclose(logits(again.net), wanted, atol=5e-4)
    assert again.tokenizer.get_vocab() == model.tokenizer.get_vocab()


def test_merging_in_low_precision_tells_what_rounding_lost(pico, tmp_path):
    _, expert, factored = made(pico, "llama")
    narrow = open_model(pico("llama"), dtype="bfloat16")
    found = merged(expert, narrow, factored, tmp_path / "merged")
    again = open_model(tmp_path / "merged", dtype="bfloat16")
    name = "model.layers.1.mlp.down_proj"
    f = factored[name]
    change = (f.u * (f.s * (expert.z[name] - 1))) @ f.vh
    real = (weight_of(again, name).float() - weight_of(narrow, name).float()).detach()
    assert found.errors[name] == pytest.approx(float((real - change).norm() / change.norm()), rel=1e-3)
    assert 1e-4 < found.error < 0.1


def test_eight_bits_lose_little_and_lie_in_a_quarter_of_the_room(pico, tmp_path):
    _, expert, factored = made(pico, "llama")
    small, lost = compress(expert, factored, bits=8)
    assert 0 < lost < 0.01
    change = torch.cat([factored[name].s * (z - 1) for name, z in expert.z.items()])
    gone = torch.cat([factored[name].s * (small.z[name] - z) for name, z in expert.z.items()])
    assert lost == pytest.approx(float(gone.norm() / change.norm()), rel=1e-4)
    save_expert(expert, tmp_path / "whole")
    back = load_expert(save_expert(small, tmp_path / "small"))
    assert all(torch.equal(back.z[name], small.z[name]) for name in small.z)
    sizes = [(tmp_path / folder / "expert.safetensors").stat().st_size for folder in ("whole", "small")]
    values = sum(z.numel() for z in expert.z.values())
    assert sizes[0] - sizes[1] > 0.5 * 3 * values - 70 * 14 * 2
    assert torch.equal(
        compress(small, factored, bits=8)[0].z["model.layers.0.mlp.up_proj"],
        small.z["model.layers.0.mlp.up_proj"],
    )


def test_keeping_directions_keeps_the_largest(pico, tmp_path):
    _, expert, factored = made(pico, "mixtral")
    small, lost = compress(expert, factored, keep=3)
    for name, z in small.z.items():
        assert ((z != 1).sum(-1) == 3).all()
        size = (factored[name].s * (expert.z[name] - 1)).abs()
        kept = torch.where(z != 1, size, torch.zeros(())).sum()
        assert kept == pytest.approx(float(size.topk(3, -1).values.sum()), rel=1e-5)
    assert 0.1 < lost < 1
    back = load_expert(save_expert(small, tmp_path / "small"))
    assert all(torch.equal(back.z[name], small.z[name]) for name in small.z)


@given(arrays("float32", (2, 9), elements=st.one_of(st.just(1.0), st.floats(-3, 3, width=32))))
def test_packing_loses_no_bit(values):
    z = {"a": torch.from_numpy(values.copy()), "b": torch.ones(3), "c": torch.tensor([1.5, 1.0, 1.0])}
    back = unpack(pack(z))
    assert all(torch.equal(back[name], z[name]) and back[name].dtype == torch.float32 for name in z)


def test_what_cannot_be_exported_is_one_sentence(pico, tmp_path):
    model, expert, factored = made(pico, "llama")
    with pytest.raises(ExpertError, match="rank 0 was asked for"):
        to_lora(expert, model, factored, tmp_path / "x", rank=0)
    with pytest.raises(ExpertError, match="0 directions"):
        compress(expert, factored, keep=0)
    with pytest.raises(ExpertError, match="4 bits"):
        compress(expert, factored, bits=4)
    with pytest.raises(ExpertError, match="lacks some of its modules"):
        merged(expert, open_model(pico("gpt2")), factored, tmp_path / "x")
    (tmp_path / "there").mkdir()
    with pytest.raises(OutputError, match="already exists"):
        merged(expert, model, factored, tmp_path / "there")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_the_expert_that_changes_nothing_is_a_lora_that_changes_nothing(pico, tmp_path):
    model, expert, factored = made(pico, "llama")
    nothing = replace(expert, z={name: torch.ones_like(z) for name, z in expert.z.items()})
    assert to_lora(nothing, model, factored, tmp_path / "lora").error == 0
    plain = AutoModelForCausalLM.from_pretrained(pico("llama"))
    assert torch.equal(logits(adapted(plain, tmp_path / "lora")), logits(model.net))
