"""Pretraining and experts: a run that was stopped ends as one that was not."""

from __future__ import annotations

import dataclasses
import json
import signal

import pytest
import torch
from transformers import LlamaConfig

from umaf.cli import main
from umaf.models import open_model, weights_hash
from zoo import batches, pretrain
from zoo import build as recipe
from zoo.configs import Row
from zoo.corpus import Corpus

CORPUS = Corpus(
    tuple("the film was good and a kind doctor wrote a letter about the town. " * 20 for _ in range(3)),
    tuple((f"the film was {word}\nsentiment:", word) for word in ("good", "bad", "kind", "poor")),
)
ROW = Row(
    "tiny",
    "bpe",
    LlamaConfig(
        vocab_size=384,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    ),
    6,
    1e-3,
)


@pytest.fixture
def trained(pico, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "CHECKPOINT_EVERY", 2)
    tokenizer = open_model(pico("llama")).tokenizer
    data = batches.encode(CORPUS, tokenizer, " ")

    def train(cache, row=ROW):
        place = tmp_path / cache
        place.mkdir(exist_ok=True)
        return pretrain.pretrain(row, data, tokenizer, place, 5).state_dict()

    return train


def test_a_stopped_pretraining_goes_on_to_the_same_weights(trained, monkeypatch):
    whole = trained("whole")
    step, seen = pretrain._step, []
    rates = [pretrain.rate_at(number, ROW.steps, ROW.rate) for number in range(ROW.steps)]

    def stopped(*args):
        seen.append(rates.index(args[3]))
        if len(seen) == 4:
            raise KeyboardInterrupt
        return step(*args)

    monkeypatch.setattr(pretrain, "_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        trained("stopped")
    again = trained("stopped")
    # Steps 0 to 3, then on from the checkpoint behind step 1.
    assert seen == [0, 1, 2, 3, 2, 3, 4, 5]
    assert whole.keys() == again.keys() and all(torch.equal(whole[key], again[key]) for key in whole)


def test_another_seed_of_a_row_is_another_model(trained):
    one = trained("one", dataclasses.replace(ROW, steps=2))
    other = trained("other", dataclasses.replace(ROW, steps=2, name="other"))
    assert any(not torch.equal(one[key], other[key]) for key in one)


@pytest.fixture
def command(pico, tmp_path, monkeypatch, capsys):
    """`umaf zoo build` with one tiny row and a corpus of a few lines."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(recipe, "ROWS", {"tiny": dataclasses.replace(ROW, steps=2)})
    monkeypatch.setattr(recipe.corpus, "read", lambda data, seed: CORPUS)
    monkeypatch.setattr(recipe, "MAKERS", {"bpe": lambda lines: open_model(pico("llama")).tokenizer})
    (tmp_path / "data" / "text").mkdir(parents=True)
    place = ("--data", tmp_path / "data", "--out", tmp_path / "zoo", "--cache", tmp_path / "cache")

    def run(*words, code=0):
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in ("zoo", "build", *place, *words)])
        shown = capsys.readouterr()
        assert end.value.code == code, shown.err
        return json.loads(shown.out) if code == 0 else shown.err

    return run


def test_the_command_builds_what_is_missing(command, tmp_path):
    (row,) = command("--json")
    assert row == {"name": "tiny", "folder": str(tmp_path / "zoo" / "tiny"), "written": True}
    assert command("--json") == [{**row, "written": False}]
    one = open_model(row["folder"])
    (tmp_path / "build.yaml").write_text(
        f"out: {tmp_path / 'other'}\nseed: 3\ndtype: float32\nonly: [tiny]\n"
    )
    # What is typed wins over the file.
    (other,) = command("--config", tmp_path / "build.yaml", "--out", tmp_path / "typed", "--json")
    assert other["written"] and other["folder"] == str(tmp_path / "typed" / "tiny")
    assert weights_hash(open_model(other["folder"])) != weights_hash(one)
    # States of another seed or arithmetic are never gone on with.
    assert (tmp_path / "cache" / "tiny.pt").is_file() and (
        tmp_path / "cache" / "3-float32" / "tiny.pt"
    ).is_file()


def test_mistakes_of_the_command_are_one_line(command):
    for words, says in (
        (("--only", "tiny2"), 'Did you mean "tiny"'),
        (("--dtype", "float16"), "should be 'bfloat16' or 'float32'"),
        (("--data", "nowhere"), "neither text/ nor icl/"),
    ):
        said = command(*words, code=1)
        assert says in said and said.count("\n") == 1
