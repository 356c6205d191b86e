"""An adapter applied tensor by tensor is what PEFT merges, for every architecture and kind of LoRA."""

from __future__ import annotations

import warnings

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from umaf.checkpoints import open_checkpoint
from umaf.deltas import lora
from umaf.errors import AdapterError
from umaf.models.quiet import quiet

AUTO = {"bert": AutoModelForMaskedLM, "t5": AutoModelForSeq2SeqLM}
LAYERS = {
    "bert": ["query", "intermediate.dense"],
    "gpt2": ["c_attn", "c_proj", "c_fc"],
    "llama": ["q_proj", "k_proj", "down_proj"],
    "mixtral": ["q_proj"],
    "t5": ["q", "wi"],
}
TABLES = {
    "bert": "word_embeddings",
    "gpt2": "wte",
    "llama": "embed_tokens",
    "mixtral": "embed_tokens",
    "t5": "shared",
}
ONE = {
    "bert": "bert.encoder.layer.0.attention.self.query",
    "gpt2": "transformer.h.0.attn.c_attn",
    "llama": "model.layers.0.self_attn.q_proj",
    "mixtral": "model.layers.0.self_attn.q_proj",
    "t5": "encoder.block.0.layer.0.SelfAttention.q",
}
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj", "mlp.gate.weight"]


@pytest.fixture(scope="session")
def untied(tmp_path_factory):
    """Bases in float32 whose head is a tensor of its own, made once."""
    made = {}

    def give(kind):
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("untied") / kind
            with quiet():
                auto = AUTO.get(kind, AutoModelForCausalLM)
                net = auto.from_pretrained(f"zoo/models/{kind}-1m", dtype=torch.float32)
                net.config.tie_word_embeddings = False
                table, head = net.get_input_embeddings(), net.get_output_embeddings()
                head.weight = torch.nn.Parameter(table.weight.detach() * 0.5)
                net.save_pretrained(made[kind])
        return made[kind]

    return give


@pytest.fixture(scope="session")
def tied(request):
    return lambda kind: request.config.rootpath / "zoo" / "models" / f"{kind}-1m"


def peft_folders(base, kind, folder, **options):
    """Train nothing, but fill an adapter with noise; give its folder and that of PEFT's merge."""
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = AUTO.get(kind, AutoModelForCausalLM).from_pretrained(str(base), dtype=torch.float32)
        settings = {"r": 4, "lora_alpha": 6, "target_modules": LAYERS[kind], **options}
        wrapped = get_peft_model(net, LoraConfig(**settings))
        torch.manual_seed(1)
        with torch.no_grad():
            for name, parameter in wrapped.named_parameters():
                if parameter.requires_grad:
                    scale = 1.0 if "lora_" in name and "magnitude" not in name else parameter.abs().mean()
                    parameter.add_(0.2 * scale * torch.randn_like(parameter))
        wrapped.save_pretrained(str(folder / "adapter"))
        # Patterns are saved in another order than they were given in, so what counts is the adapter as it is loaded.
        net = AUTO.get(kind, AutoModelForCausalLM).from_pretrained(str(base), dtype=torch.float32)
        loaded = PeftModel.from_pretrained(net, str(folder / "adapter"))
        loaded.merge_and_unload().save_pretrained(str(folder / "merged"))
    return folder / "adapter", folder / "merged"


def agree(base, adapter, merged):
    """Compare every tensor; give the names of those the adapter changes."""
    base, merged = open_checkpoint(base), open_checkpoint(merged)
    found = lora(adapter, base)
    assert set(merged.entries) == set(base.entries)
    for name in base.entries:
        before = base.read(name).float()
        after, wanted = found.apply(name, before), merged.read(name).float()
        off = float((after - wanted).norm() / wanted.norm().clamp_min(1e-9))
        assert off < 1e-5, (name, off)
        assert (name in found) == bool((wanted - before).norm() / wanted.norm().clamp_min(1e-9) > 1e-6), name
    return list(found)


FLAVOURS = {
    "plain": lambda kind: {},
    "rslora": lambda kind: {"use_rslora": True},
    "dora": lambda kind: {"use_dora": True},
    "dora+rslora": lambda kind: {"use_dora": True, "use_rslora": True},
    "patterns": lambda kind: {
        "rank_pattern": {f"^{ONE[kind]}": 2, LAYERS[kind][0]: 3},
        "alpha_pattern": {LAYERS[kind][-1]: 16, f"^{ONE[kind]}": 5.5},
        "use_rslora": True,
    },
}


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("kind", LAYERS)
def test_factors(kind, flavour, tied, tmp_path):
    base = tied(kind)
    names = agree(base, *peft_folders(base, kind, tmp_path, **FLAVOURS[flavour](kind)))
    assert names and all(name.endswith(".weight") for name in names)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_biases_of_factors(kind, tied, tmp_path):
    names = agree(tied(kind), *peft_folders(tied(kind), kind, tmp_path, lora_bias=True, use_rslora=True))
    assert any(name.endswith(".bias") for name in names)


@pytest.mark.parametrize("bias", ["all", "lora_only"])
@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_trained_biases(kind, bias, tied, tmp_path):
    names = agree(tied(kind), *peft_folders(tied(kind), kind, tmp_path, bias=bias))
    assert any(name.endswith(".bias") for name in names)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "mixtral"])
def test_embeddings(kind, dora, untied, tmp_path):
    base = untied(kind)
    names = agree(
        base,
        *peft_folders(
            base, kind, tmp_path, target_modules=[*LAYERS[kind], TABLES[kind], "lm_head"], use_dora=dora
        ),
    )
    assert any(TABLES[kind] in name for name in names) and "lm_head.weight" in names


@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5"])
def test_modules_saved_whole(kind, untied, tmp_path):
    base = untied(kind)
    names = agree(base, *peft_folders(base, kind, tmp_path, modules_to_save=["lm_head"]))
    assert "lm_head.weight" in names


@pytest.mark.parametrize("kind", ["gpt2", "llama", "mixtral"])
def test_tokens(kind, tied, untied, tmp_path):
    for number, base in enumerate((tied(kind), untied(kind))):
        place = tmp_path / str(number)
        place.mkdir()
        options = {"trainable_token_indices": {TABLES[kind]: [3, 1, 7]}}
        names = agree(base, *peft_folders(base, kind, place, **options))
        assert any(TABLES[kind] in name for name in names)


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("targets", [EXPERTS[:1], EXPERTS[1:2], EXPERTS[:2], EXPERTS], ids=len)
def test_stacked_experts(targets, rslora, tied, tmp_path):
    base = tied("mixtral")
    options = {"target_parameters": targets, "use_rslora": rslora}
    names = agree(base, *peft_folders(base, "mixtral", tmp_path, **options))
    assert any("experts" in name for name in names)


def test_experts_of_different_ranks(tied, tmp_path):
    options = {
        "target_parameters": EXPERTS[:2],
        "rank_pattern": {EXPERTS[0]: 2},
        "alpha_pattern": {EXPERTS[1]: 9},
    }
    agree(tied("mixtral"), *peft_folders(tied("mixtral"), "mixtral", tmp_path, **options))


def test_a_tie_that_the_adapter_keeps(tied, tmp_path):
    """PEFT's merge adds the delta to the shared table twice, so this goes by what the adapted model computes."""
    options = {"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True}
    adapter, _ = peft_folders(tied("llama"), "llama", tmp_path, **options)
    base, ids = open_checkpoint(tied("llama")), torch.tensor([[5, 9, 300, 2]])
    found = lora(adapter, base)
    assert "model.embed_tokens.weight" in found
    with quiet(), torch.no_grad():
        net = AutoModelForCausalLM.from_pretrained(str(tied("llama")), dtype=torch.float32)
        own = {name: found.apply(name, base.read(name).float()) for name in base.entries}
        mine = AutoModelForCausalLM.from_config(net.config).eval()
        mine.load_state_dict(own, strict=False)
        mine.tie_weights()
        wanted = PeftModel.from_pretrained(net, str(adapter)).eval()(ids).logits
        assert torch.allclose(mine(ids).logits, wanted, atol=1e-4)


@pytest.mark.parametrize("options", [{"target_modules": ["wte"]}, {"modules_to_save": ["lm_head"]}], ids=str)
def test_a_tie_that_the_adapter_breaks_is_refused(options, tied, tmp_path):
    adapter, _ = peft_folders(tied("gpt2"), "gpt2", tmp_path, **options)
    with pytest.raises(AdapterError, match="untied"):
        lora(adapter, open_checkpoint(tied("gpt2")))


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_a_base_without_the_prefix(kind, tied, tmp_path):
    """The bare model of a checkpoint names its tensors without the prefix that the one with a head has."""
    base = tied(kind)
    adapter, merged = peft_folders(base, kind, tmp_path)
    with quiet():
        net = AUTO.get(kind, AutoModelForCausalLM).from_pretrained(str(base), dtype=torch.float32)
        net.base_model.save_pretrained(tmp_path / "bare")
    bare, merged = open_checkpoint(tmp_path / "bare"), open_checkpoint(merged)
    found = lora(adapter, bare)
    assert found
    for name in found:
        wanted = merged.read(f"{'bert' if kind == 'bert' else 'transformer'}.{name}")
        assert torch.allclose(found.apply(name, bare.read(name)), wanted, atol=1e-5)
