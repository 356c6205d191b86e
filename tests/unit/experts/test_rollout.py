"""Drawing with the prompt read once gives what reading everything anew gives."""

from __future__ import annotations

import pytest
import torch

from umaf.errors import ConfigError, ModelError, ProbeError
from umaf.experts.rollout import answered, draw, likelihood, prompts_of
from umaf.models import open_model
from umaf.readout.generate import continuations
from umaf.seeds import generator

TEXTS = ["rain fell", "the small town letter was good", "a doctor wrote"]


@pytest.fixture(scope="module", params=["llama", "gpt2", "opt", "mixtral", "t5"])
def model(request, pico):
    return open_model(pico(request.param))


def test_greedy_answers_are_those_of_generate(model):
    assert answered(model, TEXTS, "answer", max_new_tokens=5, batch_size=2) == continuations(
        model, TEXTS, "answer", max_new_tokens=5
    )


def test_likelihood_of_a_row_is_that_of_reading_it_alone(model):
    prompts = prompts_of(model, TEXTS, "answer", max_new_tokens=6)
    answers = draw(model, prompts, copies=2, max_new_tokens=6, generator=generator(0, "draw"))
    with torch.no_grad():
        found = likelihood(model, prompts, answers, temperature=0.7)
        for row in range(len(answers.ids)):
            asked, count = prompts.take([row // 2]), int(answers.mask[row].sum())
            said = answers.ids[row, :count]
            if model.head == "lm":
                whole = torch.cat([asked.ids[0], said])[None]
                alone = model.net(input_ids=whole).logits[0, asked.ids.shape[1] - 1 : -1]
            else:
                start = torch.tensor([model.config.decoder_start_token_id])
                given = torch.cat([start, said[:-1]])[None]
                alone = model.net(
                    input_ids=asked.ids, attention_mask=asked.mask, decoder_input_ids=given
                ).logits[0]
            wanted = torch.log_softmax(alone / 0.7, -1)
            torch.testing.assert_close(found[row, :count], wanted, atol=2e-4, rtol=1e-3)


def test_the_same_generator_draws_the_same(model):
    prompts = prompts_of(model, TEXTS, "answer", max_new_tokens=4)
    one, two, other = (
        draw(model, prompts, copies=2, max_new_tokens=4, generator=generator(seed, "draw")).texts
        for seed in (0, 0, 1)
    )
    assert one == two != other


def test_nothing_counts_behind_the_end_of_a_line(pico):
    model = open_model(pico("gpt2"))
    prompts = prompts_of(model, TEXTS, "answer", max_new_tokens=12)
    answers = draw(
        model, prompts, copies=8, temperature=3.0, max_new_tokens=12, generator=generator(1, "long")
    )
    alive = answers.mask.int()
    assert (alive[:, 1:] <= alive[:, :-1]).all() and (alive[:, 0] == 1).all()
    assert not any("\n" in text for text in answers.texts)


def test_what_does_not_fit_is_refused(pico):
    model = open_model(pico("gpt2"))
    with pytest.raises(ConfigError, match="ask for fewer"):
        prompts_of(model, TEXTS, "answer", max_new_tokens=500)
    with pytest.raises(ProbeError, match="kept for the answer"):
        prompts_of(model, ["word " * 40], "answer", max_new_tokens=100)


def test_an_encoder_does_not_write(pico):
    model = open_model(pico("bert"))
    with pytest.raises(ModelError, match="does not write"):
        draw(model, prompts_of(model, TEXTS, "answer", max_new_tokens=4), temperature=0.0)
