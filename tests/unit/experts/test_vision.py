"""Experts inside a model that sees."""

from __future__ import annotations

import pytest
import torch

from umaf.errors import ModelError
from umaf.experts import (
    attached,
    base_identity,
    check_expert,
    decompose,
    identity_expert,
    svf_modules,
)
from umaf.experts.vision import language_of, open_vision, with_eyes
from umaf.models import open_model
from umaf.models.quiet import quiet

PICTURES = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def language(pico):
    return open_model(pico("llama"))


@pytest.fixture(scope="module")
def seeing(language):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return with_eyes(language, image_size=8, patch_size=4, channels=1, width=16)


def asked(model):
    token = model.config.image_token_index
    ids = torch.tensor([[3, *[token] * 4, 40, 50 + row] for row in range(3)])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": PICTURES}


def logits(model):
    with torch.no_grad():
        return model.net(**asked(model)).logits


def drawn(factored, *rows):
    source = torch.Generator().manual_seed(4)
    return {name: 2 * torch.rand(*rows, *f.s.shape, generator=source) for name, f in factored.items()}


def test_only_the_language_models_weights_can_be_scaled(language, seeing):
    names = svf_modules(seeing)
    assert len(names) == len(svf_modules(language))
    assert all(name.startswith("model.language_model.layers.") for name in names)


def test_the_language_model_inside_is_the_one_it_was_made_from(language, seeing):
    inside = language_of(seeing)
    assert base_identity(inside) == base_identity(language)
    ids = torch.tensor([[3, 9, 20, 31]])
    with torch.no_grad():
        assert torch.equal(inside.net(ids).logits, language.net(ids).logits)
    check_expert(identity_expert(language, "text"), inside)


def test_an_expert_of_the_language_model_acts_on_questions_about_pictures(language, seeing):
    factored = decompose(language, svf_modules(language))
    z, before = drawn(factored), logits(seeing)
    with attached(language_of(seeing), factored, z):
        found = logits(seeing)
    own = decompose(seeing, svf_modules(seeing))
    renamed = dict(zip(svf_modules(seeing), z.values(), strict=True))
    with attached(seeing, own, renamed):
        assert torch.allclose(logits(seeing), found, atol=1e-4)
    assert not torch.allclose(found, before, atol=0.05) and torch.equal(logits(seeing), before)


def test_rows_about_pictures_hold_an_expert_each_and_generate(seeing):
    factored = decompose(seeing, svf_modules(seeing))
    z, given = drawn(factored, 3), asked(seeing)
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    with attached(seeing, factored, z):
        together = seeing.net.generate(**given, **options)
    for row in range(3):
        with attached(seeing, factored, {name: each[row] for name, each in z.items()}):
            alone = seeing.net.generate(
                **{key: each[row : row + 1] for key, each in given.items()}, **options
            )
        assert torch.equal(alone[0], together[row])


def test_it_learns_inside(seeing):
    factored = decompose(seeing, svf_modules(seeing, ["mlp"]))
    z = {name: torch.ones_like(f.s, requires_grad=True) for name, f in factored.items()}
    with attached(seeing, factored, z):
        seeing.net(**asked(seeing)).logits.square().mean().backward()
    assert all(each.grad is not None and each.grad.abs().max() > 0 for each in z.values())


def test_it_is_kept_and_opened_again(seeing, tmp_path):
    with quiet():
        seeing.net.save_pretrained(tmp_path / "seeing")
    seeing.tokenizer.save_pretrained(tmp_path / "seeing")
    again = open_vision(tmp_path / "seeing")
    assert torch.allclose(logits(again), logits(seeing), atol=1e-5)
    assert base_identity(language_of(again)) == base_identity(language_of(seeing))


def test_what_cannot_see_or_speak_is_one_sentence(pico, language, tmp_path):
    with pytest.raises(ModelError, match="cannot speak of pictures"):
        with_eyes(open_model(pico("bert")), image_size=8, patch_size=4)
    with pytest.raises(ModelError, match="has no language model inside"):
        language_of(language)
    with pytest.raises(ModelError) as caught:
        open_vision(pico("bert"))
    assert "\n" not in str(caught.value)
