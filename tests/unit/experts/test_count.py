"""Parameters of an expert and of a LoRA: the paper's numbers from configs alone, the tensors' from models."""

from __future__ import annotations

import json

import pytest
from transformers import LlamaConfig

from umaf.adapters import lora_modules, weight_of
from umaf.errors import ModelError
from umaf.experts import identity_expert
from umaf.experts.count import count, from_config
from umaf.models import open_model

EIGHT = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
SEVENTY = {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
}
SHARED = {"num_key_value_heads": 8, "vocab_size": 128256}


@pytest.fixture(scope="module")
def llama_3_8b():
    return from_config(LlamaConfig(**EIGHT, **SHARED))


@pytest.mark.parametrize(
    ("wanted", "svf", "lora"),
    [
        (["mlp"], 393_216, 28_311_552),
        (["q_proj", "v_proj"], 163_840, 6_815_744),
        (["attention"], 327_680, 13_631_488),
        (["mlp", "q_proj", "v_proj"], 557_056, 35_127_296),
        (None, 720_896, 41_943_040),
    ],
)
def test_llama_3_8b_has_the_papers_numbers(llama_3_8b, wanted, svf, lora):
    found = count(llama_3_8b, wanted)
    assert (found.svf, found.lora) == (svf, lora)
    assert 0.013 < found.share < 0.0245


def test_llama_3_70b_from_its_config():
    found = count(from_config(LlamaConfig(**SEVENTY, **SHARED)))
    # Per layer: q and o 8192, k and v 1024, three of the MLP 8192.
    assert found.svf == 80 * (2 * 8192 + 2 * 1024 + 3 * 8192) == 3_440_640
    assert found.lora == 80 * 16 * (2 * 16384 + 2 * 9216 + 3 * 36864)
    assert found.weights > 68e9


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "bert", "t5", "mixtral"])
def test_it_counts_what_an_expert_holds_and_a_lora_would(pico, model_type):
    model = open_model(pico(model_type))
    found = count(model, rank=2)
    assert found.svf == sum(z.numel() for z in identity_expert(model, "x").z.values())
    assert found.modules == len(lora_modules(model, experts=True))
    shapes = [weight_of(model, name).shape for name in lora_modules(model, experts=True)]
    assert found.lora == sum(2 * (s[-1] + s[-2]) * (s[0] if len(s) == 3 else 1) for s in shapes)


@pytest.mark.parametrize("name", ["llama-5m", "gpt2-5m", "bert-5m", "t5-1m", "mixtral-1m"])
def test_on_the_zoo_it_is_below_a_tenth_of_a_lora(name):
    assert 0 < count(open_model(f"zoo:{name}")).share < 0.1


@pytest.mark.parametrize("model_type", ["llama", "bert", "t5", "mixtral", "gpt2"])
def test_a_config_file_is_enough(pico, tmp_path, model_type):
    config = json.loads((pico(model_type) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert count(from_config(tmp_path / "config.json")) == count(open_model(pico(model_type)))


def test_no_config_is_one_sentence(tmp_path):
    with pytest.raises(ModelError, match="were to be counted, but it gives no model") as caught:
        from_config(tmp_path / "nothing")
    assert "\n" not in str(caught.value)
