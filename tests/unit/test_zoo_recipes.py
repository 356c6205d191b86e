"""Pretraining and experts: a run that was stopped ends as one that was not."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from transformers import LlamaConfig

from umaf.models import open_model
from zoo import batches, pretrain
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

    def stopped(*args):
        seen.append(args[6])
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
