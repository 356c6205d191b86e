"""The four stages in a row, on every architecture, down to a folder that plain PEFT reads."""

from __future__ import annotations

import dataclasses
import json
import warnings

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

import umaf
from tests.conftest import ARCHITECTURES
from tests.texts import CUE, LABELS, PROBES
from umaf.adapters import attach, load_adapter, norms
from umaf.errors import ModelError, OutputError
from umaf.extraction import Fingerprint
from umaf.generation.distill import divergence_from
from umaf.generation.sources import Source, goals_of
from umaf.models import fresh_classifier, open_model, weights_hash
from umaf.pipeline import transfer
from umaf.readout import continuations, label_scores

AUTO = {"lm": AutoModelForCausalLM, "masked": AutoModelForMaskedLM, "seq2seq": AutoModelForSeq2SeqLM}
TARGETS = [name for name in ARCHITECTURES if name != "rwkv"]


def by_plain_peft(model, folder):
    """The model's own checkpoint and the adapter, loaded as somebody without umaf would."""
    with warnings.catch_warnings():
        # PEFT 0.21 asks transformers 5.23 by a name that was changed; everything else is an error.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        net = peft.PeftModel.from_pretrained(AUTO[model.head].from_pretrained(model.name), str(folder))
        report = net.load_adapter(str(folder), adapter_name="default")
    assert not [key for key in report.missing_keys if "lora_" in key] and not report.unexpected_keys
    return dataclasses.replace(model, net=net.eval())


@pytest.mark.parametrize("architecture", TARGETS)
def test_every_architecture_receives(pico, tmp_path, architecture):
    source = open_model(pico("gpt2" if architecture != "gpt2" else "llama"))
    target = open_model(pico(architecture))
    before = weights_hash(target)
    asked = [Source(source, PROBES, CUE, LABELS)]
    done = transfer(asked, target, tmp_path / "adapter", rank=4, options={"iterations": 2})
    assert done.folder == tmp_path / "adapter" and weights_hash(target) == before
    goals = goals_of(asked, target)
    there = divergence_from(target, goals), divergence_from(attach(target, done.factors), goals)
    assert there[1] < there[0]

    in_memory = label_scores(attach(target, done.factors), PROBES, LABELS, CUE)
    for loaded in (by_plain_peft(target, done.folder), load_adapter(target, done.folder)):
        torch.testing.assert_close(label_scores(loaded, PROBES, LABELS, CUE), in_memory, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_gives(pico, architecture):
    source = open_model(pico(architecture))
    target = open_model(pico("gpt2" if architecture != "gpt2" else "llama"))
    done = transfer([Source(source, PROBES, CUE, LABELS)], target, rank=2, options={"iterations": 1})
    assert done.folder is None and done.fused.vector.shape == (1, 512)
    assert max(norms(done.factors).values()) > 0
    assert done.fused.card.scaled_to is not None and done.fused.card.sources == (source.name,)


def test_a_function_moves_and_is_written_the_same_by_plain_peft(pico, tmp_path):
    source, target = open_model(pico("llama")), open_model(pico("t5"))
    done = transfer([Source(source, PROBES, CUE)], target, tmp_path / "a", rank=2, options={"iterations": 1})
    loaded = by_plain_peft(target, done.folder)
    assert continuations(loaded, PROBES, CUE) == continuations(attach(target, done.factors), PROBES, CUE)


def test_a_classifier_and_a_language_model_in_one_adapter(pico, tmp_path):
    bert = fresh_classifier(open_model(pico("bert")), LABELS)
    sources = [
        Source(bert, PROBES, CUE, weight=3.0),
        Source(open_model(pico("gpt2")), PROBES, "review", ("good", "bad"), weight=-1.0),
    ]
    target = open_model(pico("llama"))
    said: list[str] = []
    done = transfer(sources, target, tmp_path / "a", rank=4, fusion="spherical", seed=5, say=said.append)
    assert done.fused.card.weights == (0.75, -0.25)
    assert len(done.fingerprints) == 2 and len(said) == 6

    card = json.loads((tmp_path / "a" / "umaf.json").read_text())["provenance"]
    assert [source["weight"] for source in card["sources"]] == [3.0, -1.0]
    assert card["sources"][0]["weights"] == weights_hash(bert) and card["sources"][0]["base"] is None
    assert card["sources"][0]["labels"] == list(LABELS) and card["sources"][0]["probe_count"] == len(PROBES)
    assert (card["route"], card["rank"], card["seed"], card["fusion"]) == ("solve", 4, 5, "spherical")
    assert card["target_weights"] == weights_hash(target) and card["versions"]["peft"]
    assert card["history"] == list(done.history)
    assert not [text for text in PROBES if text in json.dumps(card)], "the user's texts stay with the user"
    stored = Fingerprint.load(tmp_path / "a" / "fingerprint.safetensors")
    assert torch.equal(stored.vector, done.fused.vector) and stored.card == done.fused.card


@pytest.mark.parametrize("route", ["solve", "distill"])
def test_a_source_equal_to_its_base_gives_the_identity(pico, tmp_path, route):
    source, base, target = (open_model(pico(name)) for name in ("bert", "bert", "llama"))
    asked = [Source(source, PROBES, CUE, LABELS, base=base)]
    done = transfer(asked, target, tmp_path / "a", route=route)
    assert done.fused.card.unchanged and not done.fused.vector.any()
    weights = load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert weights and not any(value.any() for key, value in weights.items() if "lora_B" in key)
    loaded = by_plain_peft(target, done.folder)
    assert torch.equal(label_scores(loaded, PROBES, LABELS, CUE), label_scores(target, PROBES, LABELS, CUE))
    assert "changes nothing" in done.history[0]["note"]


@pytest.mark.parametrize("extractor", ["bound", "answers"])
def test_a_source_is_asked_once_for_its_fingerprint_and_its_goal(pico, monkeypatch, extractor):
    asked = []
    monkeypatch.setattr(
        "umaf.generation.replies.label_scores",
        lambda model, *args, **more: asked.append(model.name) or label_scores(model, *args, **more),
    )
    source, target = open_model(pico("bert")), open_model(pico("llama"))
    more = {"extractor": extractor, "rank": 2, "options": {"iterations": 1}}
    done = transfer([Source(source, PROBES, CUE, LABELS)], target, **more)
    assert asked == [source.name] and max(norms(done.factors).values()) > 0
    assert done.fused.card.extractor.startswith(extractor) and done.fused.vector.any()


def test_distill_in_a_row_is_loaded_by_plain_peft(pico, tmp_path):
    source, target = open_model(pico("bert")), open_model(pico("mixtral"))
    before = weights_hash(target)
    done = transfer(
        [Source(source, PROBES, CUE, LABELS)],
        target,
        tmp_path / "a",
        route="distill",
        rank=2,
        options={"steps": 3},
    )
    assert weights_hash(target) == before
    in_memory = label_scores(attach(target, done.factors), PROBES, LABELS, CUE)
    loaded = label_scores(by_plain_peft(target, done.folder), PROBES, LABELS, CUE)
    torch.testing.assert_close(loaded, in_memory, atol=1e-5, rtol=1e-5)


def test_cut_probes_are_said(pico):
    long = ("the film was good and " * 60, *PROBES)
    source, target = open_model(pico("bert")), open_model(pico("llama"))
    done = transfer([Source(source, long, CUE, LABELS)], target, rank=2, truncate=True)
    notes = [row["note"] for row in done.history if "note" in row]
    assert notes == [f"1 of 26 probes were cut to the window of {model.name}" for model in (source, target)]


def test_an_output_in_the_way_is_refused_before_any_model_runs(pico, tmp_path, monkeypatch):
    source, target = open_model(pico("bert")), open_model(pico("llama"))
    monkeypatch.setattr("umaf.pipeline.extract", lambda *_, **__: pytest.fail("a model ran"))
    (tmp_path / "here").mkdir()
    with pytest.raises(OutputError, match="already exists"):
        transfer([Source(source, PROBES, CUE, LABELS)], target, tmp_path / "here")
    with pytest.raises(ModelError, match="same weights"):
        transfer([Source(target, PROBES, CUE, LABELS)], target, tmp_path / "there")
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_the_public_names_do_it_in_ten_lines(pico, tmp_path):
    (tmp_path / "probes.txt").write_text("\n".join(PROBES))
    probes = umaf.read_probes(tmp_path / "probes.txt")
    expert = umaf.open_model(pico("gpt2"))
    target = umaf.open_model(pico("bert"))
    source = umaf.Source(expert, probes.texts, CUE, LABELS)
    done = umaf.transfer([source], target, tmp_path / "adapter")
    assert isinstance(done.folder, type(tmp_path)) and (done.folder / "adapter_config.json").is_file()
