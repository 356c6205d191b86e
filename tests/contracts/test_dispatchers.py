"""What every registered dispatcher promises, whatever it is asked."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.dispatch.conftest import make_expert
from umaf.dispatch.decision import Decision
from umaf.dispatch.dispatchers import DISPATCHERS, Material, make_dispatcher
from umaf.dispatch.shelf import open_shelf
from umaf.models import open_model
from umaf.models.model import weights_hash
from umaf.search import CrossEntropy
from umaf.tasks.task import Example

NAMES = ("sums", "lists")
WORDS = st.lists(
    st.sampled_from("the film was good rain fell on hills is no 12 ? é \n".split(" ")),
    min_size=1,
    max_size=60,
)
TEXTS = st.lists(WORDS.map(lambda words: "a " + " ".join(words)), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def shelf(pico):
    base = open_model(pico("llama"))
    return open_shelf(base, [make_expert(base, name) for name in NAMES])


@pytest.fixture(scope="module", params=DISPATCHERS.names())
def decide(request, shelf):
    material = Material(
        examples={name: tuple(f"{name} {word}" for word in ("one", "two", "three")) for name in NAMES},
        classifier=make_expert(shelf.model, "sorter", seed=7),
        shots=(Example("is", "good"), Example("of", "joy")),
        cue="answer",
        search=CrossEntropy(population=4, elites=2, iterations=1),
    )
    return make_dispatcher(request.param, shelf, material)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=TEXTS)
def test_every_dispatcher_keeps_its_promises(shelf, decide, texts):
    decision = decide(texts)
    assert isinstance(decision, Decision) and decision.names == shelf.names
    assert len(decision) == len(decision.reasons) == len(texts)
    assert decision.weights.shape[1] == len(NAMES) and torch.isfinite(decision.weights).all()
    assert all(reason and "\n" not in reason for reason in decision.reasons)
    # A request's experts do not depend on the company it comes in.
    for row, text in enumerate(texts):
        assert torch.equal(decide([text]).weights[0], decision.weights[row])
    assert all(decision.explain(row).count("\n") == 0 for row in range(len(texts)))


def test_no_dispatcher_touches_the_base(shelf, decide):
    before = weights_hash(shelf.model)
    decide(["the film was good", "12"])
    assert weights_hash(shelf.model) == before
    assert not any(module._forward_hooks for module in shelf.model.net.modules())
    assert not any("forward" in vars(module) for module in shelf.model.net.modules())
