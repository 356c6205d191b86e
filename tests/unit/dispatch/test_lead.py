"""Words before every request are read once, and nothing is scored otherwise for it."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from tests.conftest import ARCHITECTURES
from tests.unit.dispatch.conftest import make_expert
from umaf.dispatch.beside import can_stand_beside
from umaf.dispatch.dispatchers import make_dispatcher
from umaf.dispatch.lead import Lead
from umaf.dispatch.naming import kinds_line, name_scores
from umaf.dispatch.shelf import open_shelf
from umaf.models import open_model

TEXTS = ("the film was good", "rain fell on the hills of a small town", "is the doctor kind", "joy " * 40)
NAMES = ("good music", "bad", "other", "one small town")
WRITERS = [name for name in ARCHITECTURES if name not in ("bert", "roberta", "distilbert", "rwkv")]


def read_tokens(model, monkeypatch):
    """Count the tokens that a network is given."""
    counted, inner = [], model.net.forward

    def forward(*given, **named):
        counted.append(named["input_ids"].numel())
        return inner(*given, **named)

    monkeypatch.setattr(model.net, "forward", forward)
    return counted


@pytest.mark.parametrize("family", WRITERS)
def test_scores_are_those_of_whole_prompts(pico, family, monkeypatch):
    """In one batch and alone, again and again, with texts that are cut, and with one that goes on as the words do."""
    model = open_model(pico(family))
    lead = Lead(model, kinds_line(NAMES[:3]))
    texts = [*TEXTS, "", "good"]
    whole, cut = name_scores(model, [f"{lead.text}\n{text}" for text in texts], NAMES, "kind")
    with monkeypatch.context() as patched:
        # Every name read by itself, after a copy of the text's keys and values.
        patched.setattr("umaf.dispatch.naming.can_stand_beside", lambda model: False)
        alone, _ = name_scores(model, [f"{lead.text}\n{text}" for text in texts], NAMES, "kind")
    assert torch.allclose(whole, alone, atol=2e-5)
    for _ in range(2):
        found, found_cut = lead.scores(texts, NAMES, "kind")
        assert torch.allclose(found, whole, atol=2e-5) and found_cut == cut
    alone = torch.cat([lead.scores([text], NAMES, "kind")[0] for text in texts])
    assert torch.allclose(alone, whole, atol=2e-5)


def test_the_words_are_read_once(base, monkeypatch):
    lead = Lead(base, kinds_line(["sums", "lists"], ["arithmetic of two numbers", "programs on lists"]))
    lead.scores(TEXTS[:1], NAMES, "kind")
    counted = read_tokens(base, monkeypatch)
    lead.scores(TEXTS[:1], NAMES, "kind")
    with_lead = sum(counted)
    counted.clear()
    name_scores(base, [f"{lead.text}\n{TEXTS[0]}"], NAMES, "kind")
    size = len(base.tokenizer(lead.text)["input_ids"])
    assert with_lead <= sum(counted) - size + 2


def test_the_dispatcher_decides_as_by_whole_prompts(shelf):
    decide = make_dispatcher("prompt", shelf)
    together, again = decide(TEXTS), decide(TEXTS)
    alone = torch.cat([decide([text]).weights for text in TEXTS])
    assert (together.weights == again.weights).all() and (together.weights == alone).all()


def test_another_precision_has_its_own_words(base):
    lead = Lead(base, kinds_line(["sums", "lists"]))
    plain, _ = lead.scores(TEXTS, NAMES, "kind")
    with torch.autocast("cpu", torch.bfloat16):
        narrow, _ = lead.scores(TEXTS, NAMES, "kind")
        whole, _ = name_scores(base, [f"{lead.text}\n{text}" for text in TEXTS], NAMES, "kind")
    assert not torch.equal(narrow, plain) and torch.allclose(narrow, whole, atol=0.05)
    assert torch.equal(lead.scores(TEXTS, NAMES, "kind")[0], plain)


def test_a_cache_that_cannot_be_cut_is_not_shared(pico, monkeypatch):
    """A model that slides a window over its keys reads whole prompts."""
    model = open_model(pico("llama"))
    monkeypatch.setattr("umaf.dispatch.lead.shareable", lambda cache: False)
    lead = Lead(model, kinds_line(["sums"]))
    whole, _ = name_scores(model, [f"{lead.text}\n{text}" for text in TEXTS], NAMES, "kind")
    assert torch.equal(lead.scores(TEXTS, NAMES, "kind")[0], whole)
    assert not isinstance(lead.kept, DynamicCache)


def test_descriptions_are_shown():
    assert kinds_line(["sums", "lists"], ["arithmetic", ""]) == "kinds: sums (arithmetic), lists, other"


def test_many_experts_do_not_make_every_request_dearer(base, monkeypatch):
    """What is read of a request depends on its own words and on the names alone."""
    few = open_shelf(base, [make_expert(base, "good", description="a")])
    told = open_shelf(base, [make_expert(base, "good", description="joy and music in films of a small town")])
    counted = []
    for one in (few, told):
        decide = make_dispatcher("prompt", one)
        with monkeypatch.context() as patched:
            seen = read_tokens(base, patched)
            decide(TEXTS[:3])
            counted.append(sum(seen))
    assert counted[0] == counted[1]


def test_which_models_read_names_side_by_side(pico, base):
    assert can_stand_beside(base) and can_stand_beside(open_model(pico("mixtral")))
    assert not can_stand_beside(open_model(pico("t5"))) and not can_stand_beside(open_model(pico("rwkv")))


def test_names_side_by_side_are_read_in_one_pass(base, monkeypatch):
    """A request is read once, and each name's tokens but the last."""
    counted = read_tokens(base, monkeypatch)
    # The counting forward does not say which arguments it takes.
    monkeypatch.setattr("umaf.dispatch.naming.can_stand_beside", lambda model: True)
    name_scores(base, TEXTS[:1], NAMES, "expert")
    sizes = [len(base.tokenizer(f" {name}", add_special_tokens=False)["input_ids"]) for name in NAMES]
    size = len(base.tokenizer(f"{TEXTS[0]}\nexpert:")["input_ids"])
    assert len(counted) == 1 and counted[0] == size + sum(one - 1 for one in sizes)
