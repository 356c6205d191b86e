"""The writing of a decoder, tilted towards what a judge of texts likes."""

from __future__ import annotations

import pytest
import torch

from tests.texts import PROBES
from umaf.adapters import attach
from umaf.errors import ConfigError, NumericalError, ProbeError, TaskError
from umaf.generation.tilt import Drafts, divergence, drafts, tilt, token_values
from umaf.models import open_model, weights_hash
from umaf.readout import samples
from umaf.readout.encode import encode, forward

DECODERS = ("llama", "gpt2", "gpt_neox", "mixtral", "opt")


def own(model, word):
    """Continuations of one word each, as if the model had written them: half of them that word."""
    words = ("film", "music", word, "town", word, word)
    rows = tuple(tuple(f" {one}" for one in words[i % 3 :][:3]) for i in range(len(PROBES)))
    return Drafts(
        rows, tuple(opening + one for opening, row in zip(PROBES, rows, strict=True) for one in row)
    )


def expected(model, values):
    """Mean value of the token that the model would draw next, over all places of the probes."""
    batch = encode(model, PROBES)
    with torch.no_grad():
        logits = forward(model, batch).logits[batch.mask.bool()]
    return float((logits.double().softmax(-1) @ values).mean())


@pytest.mark.parametrize("name", DECODERS)
def test_what_is_liked_becomes_likelier_and_with_a_negative_strength_less_likely(pico, name):
    model = open_model(pico(name))
    before, written = weights_hash(model), own(model, "good")
    judged = torch.tensor([float(text.endswith(" good")) for text in written.texts])
    values = token_values(model, written.rows, judged)
    less, bare, some, more = (
        attach(model, tilt(model, written, judged, cost=cost, away=away, rank=4))
        for cost, away in ((0.02, True), (0.0, False), (0.02, False), (0.08, False))
    )
    liked = [expected(form, values) for form in (less, bare, some, more)]
    assert liked == sorted(liked) and liked[1] == pytest.approx(expected(model, values))
    batch = encode(model, written.texts)
    costs = [divergence(form, model, batch) for form in (less, bare, some, more)]
    assert costs == pytest.approx([0.02, 0.0, 0.02, 0.08], rel=0.2)
    assert weights_hash(model) == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.net.modules())


def test_the_unit_of_the_judgements_does_not_matter_and_an_indifferent_judge_changes_nothing(pico):
    model = open_model(pico("llama"))
    written = own(model, "good")
    liked = torch.arange(len(written.texts)).float() % 7
    one, other = (tilt(model, written, judged, rank=2) for judged in (liked, 100 * liked - 3))
    for (a, b), (c, d) in zip(one.values(), other.values(), strict=True):
        torch.testing.assert_close(b @ a, d @ c, rtol=1e-3, atol=1e-6)
    ((_, b),) = tilt(model, written, torch.full_like(liked, 2.0), rank=2).values()
    assert not b.any()


def test_values_are_those_of_the_words(pico):
    model = open_model(pico("llama"))
    written = own(model, "good")
    judged = torch.tensor([2.0 * text.endswith(" good") - text.endswith(" town") for text in written.texts])
    values = token_values(model, written.rows, judged + 7.0)
    token = {
        word: model.tokenizer(f" {word}", add_special_tokens=False)["input_ids"][-1]
        for word in ("good", "town")
    }
    assert int(values.argmax()) == token["good"] and int(values.argmin()) == token["town"]
    assert values[token["good"]] > 0.5 and int((values != 0).sum()) <= 8


def test_drafts_are_the_models_own_seeded_and_stand_behind_their_openings(pico):
    model = open_model(pico("llama"))
    found = drafts(model, PROBES, draws=3, seed=1)
    assert found == drafts(model, PROBES, draws=3, seed=1) != drafts(model, PROBES, draws=3, seed=2)
    assert len(found.rows) == len(PROBES) and len(found.texts) == sum(map(len, found.rows))
    assert all(draft.startswith(" ") for row in found.rows for draft in row)
    behind = [opening for opening, row in zip(PROBES, found.rows, strict=True) for _ in row]
    assert all(text.startswith(opening + " ") for text, opening in zip(found.texts, behind, strict=True))


def test_a_sample_does_not_depend_on_the_texts_beside_it(pico):
    model = open_model(pico("gpt2"))
    alone = samples(model, PROBES[:1], count=2, seed=4, batch_size=2)
    assert samples(model, PROBES, count=2, seed=4, batch_size=2)[0] == alone[0]
    state = torch.get_rng_state()
    samples(model, PROBES[:2], seed=4)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_cannot_be_tilted(pico):
    decoder = open_model(pico("llama"))
    for name in ("bert", "t5"):
        with pytest.raises(TaskError, match="no decoder"):
            drafts(open_model(pico(name)), PROBES)
    with pytest.raises(ProbeError, match="at least 16"):
        drafts(decoder, PROBES[:3])
    written = own(decoder, "good")
    for judged in (torch.zeros(3), torch.full((len(written.texts),), torch.nan)):
        with pytest.raises(NumericalError, match="one finite number for each"):
            tilt(decoder, written, judged)
    with pytest.raises(ConfigError, match="0 or more"):
        tilt(decoder, written, torch.zeros(len(written.texts)), cost=-1.0)
