"""Every model of the zoo is an ordinary `transformers` checkpoint: nothing of umaf is needed to load or run it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BertForMaskedLM,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    MixtralForCausalLM,
    T5ForConditionalGeneration,
)

from umaf.models.locate import locate, zoo_names

CLASSES = {
    "bert": (AutoModelForMaskedLM, BertForMaskedLM),
    "gpt2": (AutoModelForCausalLM, GPT2LMHeadModel),
    "llama": (AutoModelForCausalLM, LlamaForCausalLM),
    "mixtral": (AutoModelForCausalLM, MixtralForCausalLM),
    "t5": (AutoModelForSeq2SeqLM, T5ForConditionalGeneration),
}
NAMES = ("bert-1m", "bert-5m", "gpt2-1m", "gpt2-5m", "llama-1m", "llama-5m", "mixtral-1m", "t5-1m")


def folder_of(name):
    if name not in zoo_names():
        pytest.skip(f"the zoo has no {name} here (umaf zoo build)")
    return locate(f"zoo:{name}")


@pytest.mark.parametrize("name", NAMES)
def test_its_plain_class_loads_it_whole_and_it_was_trained(name):
    folder = folder_of(name)
    auto, kind = CLASSES[name.partition("-")[0]]
    net, report = auto.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert type(net) is kind
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("The little girl went to the garden with her mother.", return_tensors="pt")
    if kind is T5ForConditionalGeneration:
        ids["decoder_input_ids"] = ids["input_ids"]
    if kind is MixtralForCausalLM:
        assert net.config.num_local_experts > 1
    with torch.no_grad():
        logits = net.eval()(**ids).logits[0].log_softmax(-1)
    assert torch.isfinite(logits).all()
    if kind in (GPT2LMHeadModel, LlamaForCausalLM, MixtralForCausalLM):
        wanted = ids["input_ids"][0, 1:]
        # Guessing costs log(vocabulary) nats a token, 6.9 or more.
        assert float(-logits[:-1].gather(-1, wanted[:, None]).mean()) < 4.5


def test_the_zoo_is_small_and_says_what_it_was_made_from():
    if set(zoo_names()) < set(NAMES):
        pytest.skip("the zoo is not complete here (umaf zoo build)")
    folders = [Path(locate(f"zoo:{name}")) for name in NAMES]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 40e6
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md"}
    vocabularies = set()
    for folder in folders:
        card = (folder / "README.md").read_text(encoding="utf-8")
        assert "license:" in card and "## Data and licences" in card
        vocabularies.add(
            json.dumps(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])[:2000]
        )
        kinds = {
            entry["dtype"] for entry in header(folder / "model.safetensors").values() if "dtype" in entry
        }
        assert kinds <= {"F16", "BF16"}
    assert len(vocabularies) >= 2


def header(path):
    with path.open("rb") as file:
        return json.loads(file.read(int.from_bytes(file.read(8), "little")))
