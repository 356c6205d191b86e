"""Opening models: every architecture, and one sentence for everything that can be wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from torch import nn
from transformers import AutoConfig, FNetConfig, FNetModel, ViTConfig, ViTModel

from tests import texts as plugins
from tests.conftest import ARCHITECTURES
from umaf.errors import ModelError, RegistryError
from umaf.models import (
    FAMILIES,
    family_of,
    fresh_classifier,
    layer_list,
    open_model,
    shape_hash,
    weights_hash,
)
from umaf.models.hub import hub_answers
from umaf.models.locate import explain
from umaf.models.tokenizer import byte_tokenizer


@pytest.fixture
def damaged(pico, tmp_path):
    """A copy of a tiny LLaMA to break."""
    return Path(shutil.copytree(pico("llama"), tmp_path / "copy"))


def says(place, *words, **options) -> str:
    with pytest.raises(ModelError) as caught:
        open_model(place, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence
    for word in words:
        assert word in sentence
    return sentence


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_opens_with_its_own_head(pico, architecture):
    model = open_model(pico(architecture))
    heads = {"decoder": "lm", "encoder": "masked", "encoder-decoder": "seq2seq"}
    assert model.head == heads[model.kind]
    assert not model.net.training
    assert (model.layers, model.width, len(layer_list(model))) == (2, 32, 2)
    assert model.window == (None if architecture in ("t5", "rwkv") else 128)
    assert model.tokenizer.pad_token_id is not None and model.labels == ()
    assert model.parameters == sum(p.numel() for p in model.net.parameters())
    with torch.no_grad():  # the window is exact: this many tokens fit
        ids = torch.full((1, model.window or 16), 7)
        more = {"decoder_input_ids": ids[:, :1]} if model.head == "seq2seq" else {}
        assert torch.isfinite(model.net(input_ids=ids, **more).logits).all()


def test_heads_on_request(pico):
    assert open_model(pico("bert"), head="base").head == "base"
    assert open_model(pico("bert"), head="lm").head == "masked"
    says(pico("bert"), "no weights for", "another head", head="classifier")
    says(pico("bert"), "choose one of", head="tail")
    says(pico("bert"), "float32", dtype="float31")


def test_hash_is_stable_across_processes_and_sees_one_number(pico):
    model = open_model(pico("bert"), head="base")  # has a pooler that the file lacks
    program = (
        "import sys; from umaf.models import *; print(weights_hash(open_model(sys.argv[1], head='base')))"
    )
    again = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(pico("bert"))],
        capture_output=True,
        text=True,
        check=True,
    )
    before = weights_hash(model)
    assert again.stdout.strip() == before and len(before) == 64
    with torch.no_grad():
        next(model.net.parameters()).view(-1)[0] += 1e-3
    assert weights_hash(model) != before
    assert shape_hash(model) == shape_hash(open_model(pico("bert"), head="base"))
    assert shape_hash(model) != shape_hash(open_model(pico("roberta"), head="base"))


def test_unknown_folder_and_file(tmp_path):
    says("./nowhere", "no such folder")
    says(tmp_path / "nowhere", "no such folder")
    says(tmp_path, "no config.json")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    says(tmp_path, "no weights")


def test_hub_ids(monkeypatch):
    says("nobody/nothing", "cannot be reached", "folder")

    class Answer:
        headers: dict[str, str] = {}  # noqa: RUF012
        request = status_code = None

    for kind, word in ((GatedRepoError, "gated"), (RepositoryNotFoundError, "neither a folder here nor")):

        def refuse(*_args, _kind=kind, **_more):
            raise OSError("no") from _kind("no", response=Answer())

        monkeypatch.setattr(AutoConfig, "from_pretrained", refuse)
        says("org/model", word)
    assert "--allow-pickle" in str(explain("org/model", OSError("no file named model.safetensors")))


def test_a_hub_that_does_not_answer_is_asked_once_and_in_silence(monkeypatch, capsys, caplog):
    tried = []

    def refuse(address, *_):
        tried.append(address)
        raise OSError("no network")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("socket.create_connection", refuse)
    # Its client would try six times, with waits between.
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("the hub's client tried again"))
    says("nobody/nothing", "cannot be reached", "folder")
    assert tried == [("hub.invalid", 443)]
    assert capsys.readouterr() == ("", "") and not caplog.records
    monkeypatch.setenv("https_proxy", "http://proxy.invalid:3128")
    assert hub_answers() and len(tried) == 1, "a proxy may know the way"


def test_an_architecture_comes_by_entry_point(pico, monkeypatch):
    net = open_model(pico("llama")).net
    own = replace(FAMILIES["llama"], linear=("self_attn.q_proj",))
    monkeypatch.setattr(plugins, "own", own, raising=False)
    points: list[EntryPoint] = []
    monkeypatch.setattr("umaf.models.architectures.entry_points", lambda group: points)
    points.append(EntryPoint("llama", f"{plugins.__name__}:own", "umaf.architectures"))
    with pytest.raises(RegistryError, match=r"described by .*:own and umaf; uninstall one"):
        family_of(net)
    monkeypatch.delitem(FAMILIES, "llama")
    assert family_of(net) is own


def test_zoo_names():
    says("zoo:no-such-model", "The zoo has no model")


def test_corrupt_and_cut_weights(damaged):
    weights = damaged / "model.safetensors"
    whole = weights.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"\xff" * 64):
        weights.write_bytes(broken)
        says(damaged, "corrupt or cut short", "again")


def test_pickle_only(damaged):
    state = open_model(damaged).net.state_dict()
    (damaged / "model.safetensors").unlink()
    torch.save(state, damaged / "pytorch_model.bin")
    says(damaged, "--allow-pickle", "run code")
    assert open_model(damaged, allow_pickle=True).head == "lm"


def test_no_tokenizer(damaged):
    for file in damaged.glob("tokenizer*"):
        file.unlink()
    says(damaged, "no fast tokenizer")


def test_byte_vocabulary_needs_no_tokenizer():
    tokenizer = byte_tokenizer()
    text = "é A\n"
    assert tokenizer(text)["input_ids"] == list(text.encode())
    assert tokenizer.decode(list(text.encode())) == text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_in_weights(damaged, value):
    net = open_model(damaged).net
    with torch.no_grad():
        net.model.layers[1].mlp.down_proj.weight[0, 0] = value
    net.save_pretrained(damaged)
    says(damaged, "NaN or infinity", "model.layers.1.mlp.down_proj.weight")


def test_shapes_that_disagree_with_the_config(damaged):
    config = json.loads((damaged / "config.json").read_text())
    (damaged / "config.json").write_text(json.dumps(config | {"intermediate_size": 40}))
    says(damaged, "could not be opened")
    (damaged / "config.json").write_text("{")
    says(damaged, "could not be opened")


def test_models_that_do_not_read_text(tmp_path):
    config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    ViTModel(config).save_pretrained(tmp_path / "vit")
    says(tmp_path / "vit", "pixel_values", "no usable hidden states")


def test_unknown_architectures_are_looked_at():
    config = FNetConfig(vocab_size=9, hidden_size=8, num_hidden_layers=3, intermediate_size=8)
    family = family_of(FNetModel(config))
    assert family.layers == ("encoder.layer",) and "intermediate.dense" in family.linear
    net = FNetModel(config)
    net.encoder.layer = nn.Sequential()  # type: ignore[assignment]
    with pytest.raises(ModelError, match="no list of layers"):
        family_of(net)


def test_an_adapter_folder_is_a_model(pico, tmp_path):
    from umaf.adapters import lora_modules, weight_of, write_lora

    base = open_model(pico("gpt2"))
    name = lora_modules(base)[0]
    size = weight_of(base, name).shape
    a, b = torch.ones(1, size[1]), torch.full((size[0], 1), 0.5)
    write_lora(tmp_path / "adapter", base, {name: (a, b)}, provenance={})
    model = open_model(tmp_path / "adapter")
    torch.testing.assert_close(weight_of(model, name), weight_of(base, name) + b @ a)
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"")
    says(tmp_path / "adapter", "does not fit its base")


@pytest.mark.parametrize("architecture", ["bert", "llama", "gpt2", "t5"])
def test_a_fresh_classifier_keeps_the_body(pico, architecture, tmp_path):
    model = open_model(pico(architecture))
    new = fresh_classifier(model, ["bad", "good"], seed=3)
    assert new.labels == ("bad", "good") and new.head == "classifier"
    assert weights_hash(new) == weights_hash(fresh_classifier(model, ["bad", "good"], seed=3))
    assert weights_hash(new) != weights_hash(fresh_classifier(model, ["bad", "good"], seed=4))
    name, layer = next(iter(layer_list(model)[0].named_parameters()))
    assert torch.equal(layer, layer_list(new)[0].get_parameter(name))
    new.net.save_pretrained(tmp_path / "saved")
    new.tokenizer.save_pretrained(tmp_path / "saved")
    assert open_model(tmp_path / "saved").labels == ("bad", "good")
