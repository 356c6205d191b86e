from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from umaf.errors import ProbeError, TaskError
from umaf.evaluation.evaluate import chosen_examples, evaluate
from umaf.evaluation.forgetting import forgetting
from umaf.models.open import open_model
from umaf.tasks.task import Example, Task

WORDS = (
    "the film was good",
    "the music was bad",
    "a kind doctor",
    "rain fell on the hills",
    "a small town letter",
)
LABELS = ("good", "bad")


def _task(kind: str = "classification", *, n: int = 20, answer=None) -> Task:
    texts = [f"{WORDS[i % 5]} {i}" for i in range(n)]
    rows = tuple(Example(text, answer(text) if answer else LABELS[i % 2]) for i, text in enumerate(texts))
    labels = LABELS if kind == "classification" else ()
    return Task("toy", kind, labels, "answer", rows[:2], rows[:2], rows, "here", "CC0-1.0")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["bert", "llama", "gpt2", "t5"])
def test_every_kind_of_model_is_scored(pico, kind: str):
    score = evaluate(open_model(pico(kind)), _task())
    assert score.metric == "accuracy" and score.n == 20 == len(score.predictions)
    assert set(score.predictions) <= set(LABELS)
    right = [said == one.answer for said, one in zip(score.predictions, _task().test, strict=True)]
    assert score.correct == tuple(right) and score.value == pytest.approx(np.mean(right))
    assert score.low <= score.value <= score.high and score.truncated == 0


def test_a_function_is_scored_by_exact_match(pico, monkeypatch: pytest.MonkeyPatch):
    model = open_model(pico("llama"))
    monkeypatch.setattr("umaf.evaluation.evaluate._longest_answer", lambda model, task: 8)
    said = evaluate(model, _task("function")).predictions
    assert any(said), "the tiny model has to write something for this test to mean anything"
    texts = [example.text for example in _task().test]
    right = dict(zip(texts[:15], said[:15], strict=True))
    score = evaluate(model, _task("function", answer=lambda text: right.get(text, "never said")))
    assert score.metric == "exact match" and score.n == 20
    assert score.value == 0.75 and score.predictions == said


def test_an_encoder_cannot_write(pico):
    with pytest.raises(TaskError):
        evaluate(open_model(pico("bert")), _task("function"))


def test_limits_are_seeded_nested_and_in_order(pico):
    task = _task(n=50)
    few, more = chosen_examples(task, limit=5), chosen_examples(task, limit=20)
    assert len(few) == 5 and set(few) <= set(more)
    assert list(few) == sorted(few, key=task.test.index)
    assert chosen_examples(task, limit=5, seed=1) != few
    assert chosen_examples(task, limit=99) == task.test
    model = open_model(pico("bert"))
    assert evaluate(model, task, limit=7) == evaluate(model, task, limit=7, batch_size=3)


def test_long_texts_are_cut_and_counted_or_refused(pico):
    model = open_model(pico("bert"))
    task = _task(n=4)
    long = Example("the film was good " * 200, "good")
    task = dataclasses.replace(task, test=(long, *task.test))
    assert evaluate(model, task).truncated == 1
    with pytest.raises(ProbeError):
        evaluate(model, task, truncate=False)


@pytest.mark.parametrize(("split", "limit"), [("test", 0), ("tests", None)])
def test_what_cannot_be_drawn_is_refused(split, limit):
    with pytest.raises(TaskError):
        chosen_examples(_task(), split=split, limit=limit)


def test_nothing_changed_nothing_forgotten(pico):
    model = open_model(pico("llama"))
    found = forgetting(model, model, [_task(), _task(n=12)], texts=WORDS)
    assert found.mean_drop.value == 0.0 and found.mean_drop.n == 2
    assert found.bits_change == 0.0 and found.bits_before == found.bits_after


def test_damage_shows(pico):
    before, after = open_model(pico("gpt2")), open_model(pico("gpt2"))
    answers = dict(zip(map(str, range(20)), evaluate(before, _task()).predictions, strict=True))
    task = _task(answer=lambda text: answers[text.split()[-1]])
    assert evaluate(before, task).value == 1.0
    with torch.no_grad():
        for parameter in after.net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    found = forgetting(before, after, [task], texts=WORDS)
    assert found.tasks[0].before.value == 1.0
    assert found.tasks[0].drop.value == pytest.approx(1.0 - found.tasks[0].after.value)
    assert found.mean_drop.value == found.tasks[0].drop.value
    assert found.bits_change is not None and found.bits_change > 0


def test_a_model_that_writes_nothing_has_no_bits(pico):
    model = open_model(pico("bert"))
    assert forgetting(model, model, [_task()], texts=WORDS).bits_change is None
    with pytest.raises(TaskError, match="at least one"):
        forgetting(model, model, [])
