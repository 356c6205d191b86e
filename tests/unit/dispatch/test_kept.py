"""The cache of the last reply: used again where prompt and mixture allow it, and never otherwise."""

from __future__ import annotations

import pytest
import torch

from tests.unit.dispatch.conftest import make_expert
from umaf.dispatch.adaptive import AdaptiveModel
from umaf.dispatch.decode import Drawing
from umaf.dispatch.shelf import by_name, open_shelf
from umaf.models import open_model

TURN = "the film was good and the music"
MORE = f"{TURN} was poor but kind"


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "opt", "qwen3", "mixtral", "t5"])
def test_a_longer_prompt_reads_only_what_is_new(pico, family):
    model = open_model(pico(family))
    shelf = open_shelf(model, [make_expert(model, "one")])
    warm, cold = AdaptiveModel(shelf), AdaptiveModel(shelf)
    warm.generate([TURN], experts="one", drawing=Drawing(4))
    again = warm.generate([MORE], experts="one", drawing=Drawing(12))[0]
    assert (warm.kept.reused > 5) == (family != "t5")
    assert again.text == cold.generate([MORE], experts="one", drawing=Drawing(12))[0].text
    assert cold.kept.reused == 0


def test_logits_after_a_kept_cache_are_those_of_a_whole_reading(base, shelf):
    adaptive = AdaptiveModel(shelf)
    adaptive.generate([TURN], experts="good", drawing=Drawing(4))
    ids = base.tokenizer(MORE)["input_ids"]
    mixture = tuple(by_name(shelf, {"good": 1.0}).weights[0].tolist())
    with torch.inference_mode(), shelf.applied(by_name(shelf, {"good": 1.0}).weights) as model:
        reader = adaptive.kept.reader(model, ids, mixture)
        whole = model.net(input_ids=torch.tensor([ids])).logits[:, -1]
    assert adaptive.kept.reused > 5 and torch.allclose(reader.first, whole, atol=1e-4)


@pytest.mark.parametrize(
    ("prompt", "experts"),
    [(MORE, "bad"), (MORE, {"good": 0.999}), (MORE, {}), ("rain fell on the hills", "good")],
)
def test_another_mixture_or_beginning_reads_everything(shelf, prompt, experts):
    adaptive = AdaptiveModel(shelf)
    adaptive.generate([TURN], experts="good", drawing=Drawing(4))
    reply = adaptive.generate([prompt], experts=experts, drawing=Drawing(10))[0]
    assert adaptive.kept.reused <= 1  # a first token that marks the beginning may be shared
    assert reply.text == AdaptiveModel(shelf).generate([prompt], experts=experts, drawing=Drawing(10))[0].text


def test_a_shorter_prompt_and_the_same_one(shelf):
    """The end of what was kept is taken off, the reply of the last turn included."""
    adaptive = AdaptiveModel(shelf)
    first = adaptive.generate([MORE], experts="good", drawing=Drawing(10))[0].text
    short = adaptive.generate([TURN], experts="good", drawing=Drawing(10))[0].text
    assert adaptive.kept.reused > 5
    assert short == AdaptiveModel(shelf).generate([TURN], experts="good", drawing=Drawing(10))[0].text
    assert adaptive.generate([MORE], experts="good", drawing=Drawing(10))[0].text == first


def test_a_stream_that_was_closed_leaves_a_cache_that_is_true(shelf):
    adaptive = AdaptiveModel(shelf)
    stream = adaptive.stream([MORE], by_name(shelf, {"good": 1.0}), drawings=[Drawing(30)])
    for _ in range(5):
        next(stream)
    stream.close()
    after = adaptive.generate([MORE], experts="good", drawing=Drawing(10))[0].text
    assert after == AdaptiveModel(shelf).generate([MORE], experts="good", drawing=Drawing(10))[0].text
