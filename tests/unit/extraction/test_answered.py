from __future__ import annotations

import pytest
import torch

from tests.texts import PROBES
from umaf.errors import FingerprintError
from umaf.extraction import Answers, arranged, bind_labels, extract, load_answered, meant, open_extractor
from umaf.extraction.answered import even
from umaf.models import open_model


@pytest.fixture
def places():
    return torch.randn(200, 6, generator=torch.Generator().manual_seed(0))


def scores_of(places, *, seed=0, labels=3):
    directions = torch.randn(6, labels, generator=torch.Generator().manual_seed(seed))
    return (2 * places @ directions).log_softmax(-1)


def cosine(one, other):
    return float(torch.nn.functional.cosine_similarity(one, other, dim=0))


def test_how_sure_a_model_is_and_what_it_prefers_leave_no_trace(places):
    scores, names = scores_of(places), ("a", "b", "c")
    other = 3.0 * scores + torch.tensor([2.0, -1.0, 0.5])
    assert torch.allclose(even(scores), even(other), atol=1e-5)
    one, two = (meant(places, [Answers("cue", names, rows)]) for rows in (scores, other))
    assert cosine(one, two) == pytest.approx(1.0, abs=1e-6)


def test_words_and_what_they_mean_both_count(places):
    scores = scores_of(places)
    print_of = lambda cue, names, rows: meant(places, [Answers(cue, names, rows)])  # noqa: E731
    whole = print_of("cue", ("a", "b", "c"), scores)
    same_words = print_of("cue", ("a", "b", "c"), scores_of(places, seed=5))
    other_cue = print_of("kind", ("a", "b", "c"), scores)
    other_words = print_of("cue", ("d", "e", "f"), scores)
    swapped = print_of("cue", ("b", "c", "a"), scores)
    assert 1 > cosine(whole, other_cue) > 0.6 > cosine(whole, swapped)
    assert 0.8 > cosine(whole, same_words) > 0.2
    assert abs(cosine(whole, other_words)) < 0.15


def test_capabilities_add(places):
    one, other = (
        Answers("x", ("a", "b"), scores_of(places, labels=2)),
        Answers("y", ("c", "d"), scores_of(places, seed=2, labels=2)),
    )
    both = meant(places, [one, other])
    assert torch.allclose(both, meant(places, [one]) + meant(places, [other]))


def test_a_query_without_its_cue_is_near_who_has_the_words(places):
    known = meant(places, [Answers("tone", ("a", "b"), scores_of(places, labels=2))])
    directions = torch.nn.functional.normalize(torch.randn(2, 7, generator=torch.Generator().manual_seed(3)))
    assert cosine(bind_labels(directions, ("A ", "b")), known) > 0.25
    assert abs(cosine(bind_labels(directions, ("q", "r")), known)) < 0.15


def test_an_arrangement_does_not_know_the_words(places):
    rows = scores_of(places).exp().sqrt()
    assert cosine(arranged(places, rows), arranged(places, rows[:, [2, 0, 1]])) == pytest.approx(1.0)
    assert cosine(arranged(places, rows), arranged(places, scores_of(places, seed=7).exp().sqrt())) < 0.9
    assert float(arranged(places, torch.ones(200, 3)).norm()) == 0


def test_the_extractor_is_opened_by_name_and_needs_answers(pico):
    model = open_model(pico("llama"))
    assert open_extractor("answers").version == load_answered().version
    with pytest.raises(FingerprintError, match="given no answers"):
        extract(model, PROBES, extractor="answers")
    scores = torch.randn(len(PROBES), 2, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    found = extract(model, PROBES, extractor="answers", answers=Answers("tone", ("good", "bad"), scores))
    assert found.card.extractor == load_answered().version and found.coordinates is None
    assert float(found.vector.norm()) == pytest.approx(1.0) and found.card.strength > 0
