"""Experts carried to other models: by what they do, by number, and by chance."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from umaf.errors import ExpertError, TaskError
from umaf.experts import attached, check_expert, decompose, identity_expert, svf_modules
from umaf.experts.across import Fit, aligned
from umaf.experts.by_number import in_order, partners, shuffled
from umaf.experts.vocabulary import token_map
from umaf.models import open_model
from umaf.readout import label_scores

TEXTS = [
    f"{one} {two}"
    for one in (
        "the film was good and kind",
        "a doctor wrote a letter",
        "rain fell on the hills",
        "small town music",
    )
    for two in ("about joy", "in one class of three", "and music was poor", "to the bad town")
]


def drawn(model, names=None):
    expert = identity_expert(model, "drawn", modules=names)
    source = torch.Generator().manual_seed(7)
    return replace(
        expert, z={name: 0.5 + torch.rand(z.shape, generator=source) for name, z in expert.z.items()}
    )


@pytest.fixture(scope="module")
def llama(pico):
    model = open_model(pico("llama"))
    return model, decompose(model, svf_modules(model))


def logits(model, factored, z):
    ids = torch.tensor([[9, 20, 31, 42, 53], [8, 17, 26, 35, 44]])
    with torch.no_grad(), attached(model, factored, z):
        return model.net(ids).logits


def test_carried_to_the_model_it_is_of_an_expert_does_the_same_again(llama):
    model, factored = llama
    expert = drawn(model)
    found = aligned(
        expert, (model, model), (factored, factored), TEXTS, fit=Fit(steps=120, strength=1e-6, decay=0.0)
    )
    missing = found.card.curves["missing"]
    assert missing[0] == pytest.approx(1, rel=0.05) and missing[-1] < 0.1
    wanted, base = logits(model, factored, expert.z), logits(model, factored, {})
    assert (logits(model, factored, found.z) - wanted).norm() < 0.5 * (base - wanted).norm()
    check_expert(found, model)
    assert found.card.objective == "across" and found.card.settings["way"] == "aligned"


@pytest.mark.parametrize("target", ["gpt2", "bert", "t5"])
def test_it_reaches_other_architectures_and_tokenizers(pico, llama, target):
    source, theirs = llama
    model = open_model(pico(target))
    factored = decompose(model, svf_modules(model, ["mlp"]))
    found = aligned(drawn(source), (source, model), (theirs, factored), TEXTS, fit=Fit(steps=15))
    assert (
        set(found.z) == set(factored) and found.card.curves["missing"][-1] < found.card.curves["missing"][0]
    )
    check_expert(found, model)


@pytest.mark.parametrize("family", ["gpt2", "bert", "t5"])
def test_what_is_answered_is_met_where_the_words_of_answers_are_known(pico, llama, family):
    """The source's expert prefers "bad" or "good" by the text; so does the target, after a fit to texts and words."""
    source, theirs = llama
    model = open_model(pico(family))
    factored, labels, cue = decompose(model, svf_modules(model)), ("good", "bad"), "answer"
    expert = drawn(source)
    with attached(source, theirs, expert.z):
        wanted = label_scores(source, TEXTS, labels, cue)
    moved = (wanted - label_scores(source, TEXTS, labels, cue)).diff(dim=1)
    bare = label_scores(model, TEXTS, labels, cue).diff(dim=1)
    fit = Fit(steps=60, outputs=1.0, decay=0.0)
    found = aligned(expert, (source, model), (theirs, factored), TEXTS, cue=cue, labels=labels, fit=fit)
    with attached(model, factored, found.z):
        shift = label_scores(model, TEXTS, labels, cue).diff(dim=1) - bare
    assert (shift - moved).norm() < 0.4 * moved.norm()
    assert found.card.settings["labels"] == ["good", "bad"] and found.card.curves["missing"][-1] < 0.2


def test_labels_that_cannot_be_read_are_one_sentence(llama):
    model, factored = llama
    with pytest.raises(TaskError, match="Labels are read after a cue") as caught:
        aligned(drawn(model), (model, model), (factored, factored), TEXTS, labels=("good", "bad"))
    assert "\n" not in str(caught.value)


def test_by_number_an_expert_of_its_own_base_stays_as_it_is(llama):
    model, _ = llama
    expert = drawn(model)
    found = in_order(expert, model, model)
    assert all(torch.equal(found.z[name], expert.z[name]) for name in expert.z)
    mixed = shuffled(expert, model, model, seed=1)
    assert all(torch.equal(mixed.z[name].sort().values, expert.z[name].sort().values) for name in expert.z)
    assert not any(torch.equal(mixed.z[name], expert.z[name]) for name in expert.z)
    again = shuffled(expert, model, model, seed=1)
    assert all(torch.equal(mixed.z[name], again.z[name]) for name in expert.z)


@pytest.mark.parametrize("target", ["gpt2", "mixtral", "bert", "t5"])
def test_by_number_it_fits_other_shapes(pico, llama, target):
    model = open_model(pico(target))
    found = in_order(drawn(llama[0]), llama[0], model)
    check_expert(found, model)
    assert set(found.z) == set(svf_modules(model)) and all(not (z == 1).all() for z in found.z.values())


def test_partners_are_of_one_kind_name_and_depth():
    source = [
        f"layers.{layer}.{part}" for layer in range(2) for part in ("self_attn.q", "self_attn.v", "mlp.up")
    ]
    target = [
        f"layers.{layer}.{part}" for layer in range(4) for part in ("self_attn.v", "self_attn.q", "mlp.fc")
    ]
    found = partners(source, target)
    assert found["layers.0.self_attn.v"] == "layers.0.self_attn.v"
    assert found["layers.3.self_attn.q"] == "layers.1.self_attn.q"
    assert found["layers.1.mlp.fc"] == "layers.0.mlp.up" and found["layers.2.mlp.fc"] == "layers.1.mlp.up"
    assert partners(["layers.0.mlp.up"], ["layers.0.self_attn.q"]) == {}


def test_a_change_of_logits_goes_by_strings_from_one_vocabulary_to_another(pico, llama):
    model, gpt2 = llama[0], open_model(pico("gpt2"))
    for source, target in ((model, gpt2), (gpt2, model), (model, model)):
        between = token_map(source, target)
        words = {}
        for text in (" film", " doctor", " letter"):
            own, theirs = (
                each.tokenizer(text, add_special_tokens=False)["input_ids"][0] for each in (source, target)
            )
            words[text] = (own, between.target.tolist().index(theirs))
        before = torch.zeros(1, source.config.vocab_size)
        for own, place in words.values():
            after = before.clone()
            after[0, own] += 3
            change = between.carry(before, after)[0]
            # Several of the source's tokens may begin with the same token there, which dilutes the change.
            assert change[place] > 1 and change[place] == change.max()
    same = torch.randn(2, model.config.vocab_size)
    assert torch.allclose(between.carry(same, same), torch.zeros(2, len(between.target)))


def test_what_cannot_be_carried_is_one_sentence(pico, llama):
    model, factored = llama
    nothing = identity_expert(model, "nothing")
    with pytest.raises(ExpertError, match="it changes nothing; give texts of the task"):
        aligned(nothing, (model, model), (factored, factored), TEXTS)
    attention = drawn(model, svf_modules(model, ["attention"]))
    bert = open_model(pico("bert"))
    with pytest.raises(ExpertError, match="has no module for any of expert"):
        in_order(attention, model, bert, modules=svf_modules(bert, ["mlp"]))
    with pytest.raises(ExpertError, match="lacks some of its modules"):
        in_order(drawn(bert), model, bert)
