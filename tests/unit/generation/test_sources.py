"""Sources become goals: whose answers, under which words, in which shares."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.texts import CUE, LABELS, PROBES
from umaf.errors import ConfigError, FingerprintError, ModelError, ProbeError, TaskError
from umaf.generation import replies as replies_module
from umaf.generation.replies import Replies, labels_of
from umaf.generation.sources import Source, goals_of
from umaf.models import fresh_classifier, open_model
from umaf.readout import continuations, label_scores


@pytest.fixture(scope="module")
def opened(pico):
    return {name: open_model(pico(name)) for name in ("bert", "llama", "gpt2", "t5")}


def moved(model, scale=1.5):
    """The model with larger weights in its last layer: an expert, and no longer its base."""
    other = dataclasses.replace(model, net=type(model.net)(model.config).eval())
    other.net.load_state_dict(model.net.state_dict())
    with torch.no_grad():
        for name, parameter in other.net.named_parameters():
            if ".1." in name and parameter.dim() > 1:
                parameter.mul_(scale)
    return other


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5"])
def test_label_words_are_read_from_any_head(opened, name):
    (goal,) = goals_of([Source(opened[name], PROBES, CUE, LABELS)], opened["llama"])
    assert (goal.texts, goal.labels, goal.cue, goal.weight) == (PROBES, LABELS, CUE, 1.0)
    torch.testing.assert_close(goal.wanted, label_scores(opened[name], PROBES, LABELS, CUE))


def test_a_classifier_answers_with_its_own_classes(opened):
    model = fresh_classifier(opened["bert"], ["negative", "positive"])
    plain, turned, renamed = (
        goals_of([Source(model, PROBES, CUE, labels)], opened["llama"])[0]
        for labels in ((), ("Positive", "Negative"), ("bad", "good"))
    )
    assert plain.labels == ("negative", "positive") and renamed.labels == ("bad", "good")
    torch.testing.assert_close(turned.wanted, plain.wanted.flip(1))
    torch.testing.assert_close(renamed.wanted, plain.wanted)
    assert plain.wanted.std(0).max() > 0


@pytest.mark.parametrize("labels", [("negative", "neutral"), ("bad", "good", "fair"), ("bad",)])
def test_labels_that_are_not_the_classifiers(opened, labels):
    model = fresh_classifier(opened["bert"], ["negative", "positive"])
    with pytest.raises(TaskError, match="whose classes are negative, positive"):
        goals_of([Source(model, PROBES, CUE, labels)], opened["llama"])


def test_classes_without_names_need_words(opened):
    model = fresh_classifier(opened["bert"], ["LABEL_0", "LABEL_1"])
    with pytest.raises(TaskError, match="have no names"):
        labels_of(Source(model, PROBES, CUE))
    assert labels_of(Source(model, PROBES, CUE, LABELS)) == LABELS


def test_a_function_is_what_the_source_writes(opened):
    source = Source(opened["llama"], PROBES, CUE)
    (goal,) = goals_of([source], opened["t5"])
    written = dict(zip(PROBES, continuations(opened["llama"], PROBES, CUE), strict=True))
    assert goal.is_function and goal.answers == tuple(written[text] for text in goal.texts)
    assert set(PROBES) - set(goal.texts) == {text for text in PROBES if not written[text].strip()}


def test_one_capability_of_two_sources_is_one_goal(opened):
    sources = [
        Source(opened["bert"], PROBES, CUE, LABELS, weight=3.0),
        Source(opened["gpt2"], PROBES, CUE, LABELS[::-1], weight=1.0),
    ]
    (goal,) = goals_of(sources, opened["llama"])
    one, two = (label_scores(source.model, PROBES, LABELS, CUE) for source in sources)
    torch.testing.assert_close(goal.wanted, (0.75 * one + 0.25 * two).log_softmax(-1))
    assert goal.labels == LABELS and goal.weight == 4.0


def test_other_cues_and_probes_are_other_capabilities(opened):
    sources = [
        Source(opened["bert"], PROBES, CUE, LABELS, weight=0.2),
        Source(opened["bert"], PROBES, "review", LABELS, weight=0.8),
        Source(opened["bert"], PROBES[::-1], CUE, LABELS),
    ]
    assert [goal.weight for goal in goals_of(sources, opened["llama"])] == [0.2, 0.8, 1.0]


def test_writers_vote(opened, monkeypatch):
    said = {"a": "x", "b": "y", "c": "y"}
    monkeypatch.setattr(
        "umaf.generation.replies.continuations",
        lambda model, texts, cue, **_: [said[model.name]] * len(texts),
    )
    sources = [
        Source(dataclasses.replace(opened["gpt2"], name=name), PROBES, CUE, weight=weight)
        for name, weight in (("a", 1.0), ("b", 0.6), ("c", 0.6))
    ]
    (goal,) = goals_of(sources, opened["t5"])
    assert set(goal.answers) == {"y"} and goal.weight == pytest.approx(2.2)
    assert set(goals_of(sources[:2], opened["t5"])[0].answers) == {"x"}


def test_a_zero_weight_leaves(opened):
    sources = [
        Source(opened[name], PROBES, CUE, LABELS, weight=w) for name, w in (("bert", 1.0), ("gpt2", 0.0))
    ]
    (goal,) = goals_of(sources, opened["llama"])
    torch.testing.assert_close(goal.wanted, label_scores(opened["bert"], PROBES, LABELS, CUE))


def test_a_negative_weight_mirrors_at_the_bare_target(opened):
    (goal,) = goals_of([Source(opened["bert"], PROBES, CUE, LABELS, weight=-0.5)], opened["llama"])
    own, other = (label_scores(opened[name], PROBES, LABELS, CUE) for name in ("llama", "bert"))
    torch.testing.assert_close(goal.wanted, (2 * own - other).log_softmax(-1))
    # The shift away from the source is as large as the shift towards it would be.
    margin = [(scores[:, 0] - scores[:, 1]) for scores in (goal.wanted, own, other)]
    torch.testing.assert_close(margin[0] - margin[1], margin[1] - margin[2], atol=1e-5, rtol=1e-5)
    assert goal.weight == 0.5


@pytest.mark.parametrize("labels", [LABELS, ()])
def test_a_source_equal_to_its_base_has_nothing_to_move(opened, pico, labels):
    again = open_model(pico("llama"))
    assert goals_of([Source(again, PROBES, CUE, labels, base=opened["llama"])], opened["t5"]) == []
    expert = moved(opened["llama"], scale=3.0)
    assert len(goals_of([Source(expert, PROBES, CUE, labels, base=again)], opened["t5"])) == 1


@pytest.mark.parametrize("labels", [LABELS, ()])
def test_a_source_with_a_base_is_asked_once(opened, monkeypatch, labels):
    """For its goal, and beside its base, to see what changed; the base is asked a few probes before all."""
    asked: list[tuple[str, int]] = []
    name = "label_scores" if labels else "continuations"
    ask = getattr(replies_module, name)

    def counted(model, probes, *args, **more):
        asked.append((model.name, len(probes)))
        return ask(model, probes, *args, **more)

    monkeypatch.setattr(replies_module, name, counted)
    expert = dataclasses.replace(moved(opened["llama"], scale=3.0), name="expert")
    source = Source(expert, PROBES, CUE, labels, base=opened["llama"])
    replies = Replies()
    if labels:
        replies.scores(source)
    (goal,) = goals_of([source], opened["t5"], replies=replies)
    assert asked == [("expert", len(PROBES)), (opened["llama"].name, 16)]
    assert len(goals_of([source], opened["t5"], replies=replies)) == 1 and len(asked) == 2
    (again,) = goals_of([source], opened["t5"])
    assert torch.equal(goal.wanted, again.wanted) and goal.answers == again.answers


def test_weights_that_change_no_answer_are_nothing_to_move(opened):
    other = moved(opened["gpt2"], scale=1.0)
    with torch.no_grad():  # positions that no probe reaches
        other.net.transformer.wpe.weight[100:] += 1
    assert goals_of([Source(other, PROBES, CUE, LABELS, base=opened["gpt2"])], opened["t5"]) == []


def test_a_bare_encoder_is_compared_with_its_bases_body(opened, pico):
    body = open_model(pico("bert"), head="base")
    assert goals_of([Source(body, PROBES, CUE, LABELS, base=opened["bert"])], opened["t5"]) == []


def test_a_classifier_on_an_untouched_body_has_something_to_move(opened):
    model = fresh_classifier(opened["bert"], LABELS)
    assert len(goals_of([Source(model, PROBES, CUE, base=opened["bert"])], opened["llama"])) == 1


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"probes": PROBES[:5]}, ProbeError, "at least 16"),
        ({"probes": PROBES + PROBES[:1]}, ProbeError, "repeats"),
        ({"probes": PROBES + (" ",)}, ProbeError, "empty"),
        ({"labels": ("good",)}, TaskError, "single label"),
        ({"labels": ("good", "good")}, TaskError, "differ"),
        ({"labels": LABELS, "cue": ""}, TaskError, "cue"),
        ({"weight": 0.0}, FingerprintError, "weights are 0"),
        ({"weight": float("nan")}, FingerprintError, "finite"),
        ({"weight": -1.0}, ConfigError, "no opposite"),
    ],
)
def test_mistakes_are_one_sentence(opened, change, error, words):
    source = dataclasses.replace(Source(opened["gpt2"], PROBES, CUE), **change)
    with pytest.raises(error, match=words) as caught:
        goals_of([source], opened["llama"])
    assert "\n" not in str(caught.value)


def test_who_cannot_write(opened):
    with pytest.raises(TaskError, match="name the labels"):
        goals_of([Source(opened["bert"], PROBES, CUE)], opened["llama"])
    with pytest.raises(TaskError, match="choose a language model as target"):
        goals_of([Source(opened["llama"], PROBES, CUE)], opened["bert"])


def test_no_source_and_the_target_itself(opened, pico):
    with pytest.raises(ConfigError, match="at least one source"):
        goals_of([], opened["llama"])
    with pytest.raises(ModelError, match="same weights"):
        goals_of([Source(open_model(pico("llama")), PROBES, CUE, LABELS)], opened["llama"])
