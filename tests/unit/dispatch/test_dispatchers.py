"""The four ways to choose experts, behind one interface."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from tests.unit.dispatch.conftest import make_expert
from umaf import registry
from umaf.dispatch.classifier import naming_task, train_classifier
from umaf.dispatch.decision import Decision
from umaf.dispatch.dispatchers import DISPATCHERS, Material, make_dispatcher
from umaf.dispatch.few_shot import equal_shots, fitness_on, mix_by_shots
from umaf.dispatch.naming import CONTENT_FREE, name_scores, naming_cue, unbiased
from umaf.dispatch.probe import features, fit_probe, read_probe
from umaf.dispatch.shelf import open_shelf
from umaf.errors import ConfigError, ExpertError, ProbeError, RegistryError, TaskError
from umaf.experts.expert import load_expert
from umaf.experts.rollout import answered
from umaf.experts.settings import TrainSettings
from umaf.models import open_model
from umaf.readout import answer_loss, answer_tokens
from umaf.readout.generate import answer_ids
from umaf.search import Cma, CrossEntropy
from umaf.tasks.task import Example

TEXTS = ("the film was good", "rain fell on the hills", "is the doctor kind")
GOOD = tuple(f"the film was good and the music {end}" for end in ("kind", "good", "poor", "bad", "a joy"))
RAIN = tuple(f"rain fell on the hills of a small town {end}" for end in ("one", "two", "three", "in", "no"))


def test_the_registry_lists_all_and_knows_its_group():
    assert DISPATCHERS.names() == ["classifier", "few-shot", "probe", "prompt"]
    assert DISPATCHERS.group in registry.GROUPS


def test_an_unknown_dispatcher(shelf):
    with pytest.raises(RegistryError, match='Did you mean "prompt"'):
        make_dispatcher("promt", shelf)


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
def test_names_are_scored_as_continuations(pico, family):
    """Against the plain sum of log-probabilities over each name's own tokens, one name at a time."""
    model = open_model(pico(family))
    names, cue = ("good music", "bad", "other"), "kind, one of good music, bad, other"
    scores, cut = name_scores(model, TEXTS, names, cue)
    assert scores.shape == (3, 3) and cut == [False] * 3
    for column, name in enumerate(names):
        tokens = answer_tokens(model.tokenizer, name)
        for row, text in enumerate(TEXTS):
            own = answer_tokens_score(model, f"{text}\n{cue}:", tokens)
            assert math.isclose(float(scores[row, column]), own, abs_tol=1e-3)


def answer_tokens_score(model, prompt, tokens):
    ids = model.tokenizer(prompt, add_special_tokens=True)["input_ids"]
    with torch.inference_mode():
        if model.head == "seq2seq":
            start = [model.config.decoder_start_token_id, *tokens[:-1]]
            logits = model.net(
                input_ids=torch.tensor([ids]), decoder_input_ids=torch.tensor([start]), use_cache=False
            ).logits[0]
        else:
            logits = model.net(input_ids=torch.tensor([[*ids, *tokens]]), use_cache=False).logits[0]
            logits = logits[len(ids) - 1 : -1]
    chances = logits.log_softmax(-1)
    return float(chances[torch.arange(len(tokens)), torch.tensor(tokens)].mean())


def test_the_taste_for_a_name_is_taken_off():
    taste = torch.tensor([[-1.0, -5.0]] * 3)
    assert unbiased(torch.tensor([[-1.5, -4.0]]), taste).argmax() == 1
    assert torch.allclose(unbiased(taste, taste), torch.full((3, 2), 0.5))


def test_the_prompt_always_gives_a_name_of_the_shelf_or_other(shelf):
    decide = make_dispatcher("prompt", shelf)
    decision = decide([*TEXTS, "?", "1 2 3", "x" * 40])
    assert isinstance(decision, Decision) and decision.names == shelf.names
    assert all(float(row.sum()) in (0.0, 1.0) for row in decision.weights)
    assert all(reason.startswith("the base finds ") for reason in decision.reasons)


def test_content_free_texts_are_undecided(shelf):
    """After calibration a text without content favours no name: nothing but taste was left, and it is gone."""
    cue = naming_cue(shelf.names)
    scores, _ = name_scores(shelf.model, CONTENT_FREE, (*shelf.names, "other"), cue)
    shares = unbiased(scores, scores).mean(0)
    assert float(shares.max() - shares.min()) < 0.2


def test_mixed_weights_are_shares(shelf):
    weights = make_dispatcher("prompt", shelf, Material(mixed=True))(TEXTS).weights
    assert ((weights > 0) & (weights < 1)).all() and (weights.sum(1) < 1).all()


def test_the_prompt_is_told_by_known_requests_what_the_base_says_to_a_kind(base):
    """The names mean nothing to a base with random weights; what it says to like requests is alike all the same."""
    shelf = open_shelf(base, [make_expert(base, name) for name in ("films", "weather")])
    examples = {"films": GOOD, "weather": RAIN}
    decision = make_dispatcher("prompt", shelf, Material(examples=examples))([*GOOD, *RAIN])
    right = torch.tensor([[1.0, 0.0]] * len(GOOD) + [[0.0, 1.0]] * len(RAIN))
    assert (decision.weights == right).all(1).sum() >= 8
    plain = make_dispatcher("prompt", shelf)([*GOOD, *RAIN])
    few = make_dispatcher("prompt", shelf, Material(examples={"films": GOOD}))([*GOOD, *RAIN])
    assert torch.equal(plain.weights, few.weights)  # of every expert, or of none


def test_known_requests_of_other_make_it_a_kind(base):
    shelf = open_shelf(base, [make_expert(base, name) for name in ("films", "weather")])
    other = ("yes no yes", "no no", "one two three", "x y z")
    decide = make_dispatcher(
        "prompt", shelf, Material(examples={"films": GOOD, "weather": RAIN, "other": other})
    )
    assert decide(other).weights.sum() <= 1
    assert decide([*GOOD, *RAIN]).weights.sum() >= 7
    mixed = make_dispatcher(
        "prompt", shelf, Material(examples={"films": GOOD, "weather": RAIN, "other": other}, mixed=True)
    )
    weights = mixed([*GOOD, *RAIN]).weights
    assert weights.shape == (10, 2) and (weights.sum(1) < 1.0001).all() and (weights >= 0).all()


def test_a_long_request_is_sorted_by_its_beginning(shelf):
    decide = make_dispatcher("prompt", shelf)
    decision = decide([TEXTS[0], "rain fell on the hills " * 60])
    assert decision.reasons[1].endswith("from the beginning of the request")
    assert "beginning" not in decision.reasons[0]


def test_names_that_do_not_fit_the_window(base):
    wide = open_shelf(base, [make_expert(base, "good", description="words " * 60)])
    with pytest.raises(ProbeError, match="do not fit the window"):
        make_dispatcher("prompt", wide)


def test_a_model_that_does_not_write_cannot_be_asked(pico):
    encoder = open_model(pico("bert"))
    with pytest.raises(TaskError, match="does not write"):
        make_dispatcher("prompt", open_shelf(encoder, [make_expert(encoder, "good")]))


def test_the_probe_learns_from_texts_by_name(base):
    shelf = open_shelf(base, [make_expert(base, name) for name in ("films", "weather")])
    examples = {"films": GOOD, "weather": RAIN, "other": ("yes no yes", "no no", "one two three", "x y z")}
    decide = make_dispatcher("probe", shelf, Material(examples=examples))
    decision = decide(
        ["the film was good and the music the", "rain fell on the hills of a small town the", "no yes"]
    )
    assert decision.weights.tolist() == [[1, 0], [0, 1], [0, 0]]
    assert decision.reasons[0].startswith("the probe finds films likeliest")


def test_the_strength_of_a_probe_is_chosen_by_texts_left_out(base):
    """The closed form against fits that really leave one text out."""
    from umaf.dispatch.probe import _left_out
    from umaf.tensors import ridge

    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = torch.tensor([0, 1, 0, 1, 1, 0, 1])
    y = torch.nn.functional.one_hot(wanted, 2).double()
    penalty = 0.3 * float((x * x).sum()) / 5
    right = 0
    for out in range(7):
        kept = [at for at in range(7) if at != out]
        gram = x[kept].T @ x[kept] + penalty * torch.eye(5, dtype=torch.float64)
        fitted = torch.linalg.solve(gram, x[kept].T @ y[kept])
        right += int((x[out] @ fitted).argmax() == wanted[out])
    assert math.isclose(_left_out(x, y, 0.3, wanted, torch.zeros(2)), right / 7, abs_tol=1e-6)
    assert ridge(x, y, strength=0.3).shape == (5, 2)


def test_a_probe_gives_shares(base):
    fitted = fit_probe(base, {"films": GOOD, "weather": RAIN})
    shares = read_probe(fitted, features(base, TEXTS))
    assert torch.allclose(shares.sum(1), torch.ones(3), atol=1e-6) and (shares >= 0).all()


@pytest.mark.parametrize(
    ("examples", "found"),
    [({"good": GOOD}, '"bad" has fewer than two'), ({"god": GOOD}, '"god" is not on the shelf')],
)
def test_a_probe_without_its_texts(shelf, examples, found):
    with pytest.raises(ExpertError, match=found):
        make_dispatcher("probe", shelf, Material(examples=examples))


def test_the_classifier_is_on_the_base_for_the_first_pass_only(shelf):
    """Its answers are those of the expert trained for it, not those of the base."""
    expert = make_expert(shelf.model, "sorter", seed=4, spread=0.9)
    decision = make_dispatcher("classifier", shelf, Material(classifier=expert))(TEXTS)
    own = open_shelf(shelf.model, [expert])
    cue, names = "expert", (*shelf.names, "other")
    with own.applied(torch.ones(1, 1)) as model:
        there, _ = name_scores(model, TEXTS, names, cue)
    here, _ = name_scores(shelf.model, TEXTS, names, cue)
    assert not torch.allclose(there, here, atol=1e-2)
    expected = [float(top < 3) for top in there.argmax(1).tolist()]
    assert decision.weights.sum(1).tolist() == expected
    assert all('the classifier "sorter" finds' in reason for reason in decision.reasons)


def test_a_classifier_that_is_not_there_or_tells_other_names_apart(shelf):
    with pytest.raises(ExpertError, match="no expert trained for it was given"):
        make_dispatcher("classifier", shelf)
    expert = make_expert(shelf.model, "sorter")
    for data, told in (
        ({"cue": "kind, one of x, other"}, "kind, one of x, other"),
        ({"cue": "expert", "task": "kinds: x, other"}, "kinds: x, other"),
    ):
        strange = type(expert)(expert.name, expert.z, expert.card.model_copy(update={"data": data}))
        with pytest.raises(
            ExpertError, match=f'trained to answer "{told}", but this shelf asks "kinds: good'
        ):
            make_dispatcher("classifier", shelf, Material(classifier=strange))


def test_a_classifier_that_was_told_the_names_is_still_told_them(shelf):
    """One trained before the names were left out of its question."""
    expert, cue = make_expert(shelf.model, "sorter", seed=4, spread=0.9), naming_cue(shelf.names)
    older = type(expert)(expert.name, expert.z, expert.card.model_copy(update={"data": {"cue": cue}}))
    decision = make_dispatcher("classifier", shelf, Material(classifier=older))(TEXTS)
    with open_shelf(shelf.model, [expert]).applied(torch.ones(1, 1)) as model:
        scores, _ = name_scores(model, TEXTS, (*shelf.names, "other"), cue)
    assert decision.weights.sum(1).tolist() == [float(top < 3) for top in scores.argmax(1).tolist()]


def test_the_task_of_a_classifier(base):
    task = naming_task(base, {"films": GOOD, "weather": RAIN, "other": TEXTS}, names=["films", "weather"])
    assert (
        task.labels == ("films", "weather", "other")
        and task.cue == "expert"
        and task.name == "kinds: films, weather, other"
    )
    assert len(task.train) == 10 and len(task.validation) == 3 and task.test == ()
    assert not {one.text for one in task.train} & {one.text for one in task.validation}
    with pytest.raises(ExpertError, match='"weather" has 0'):
        naming_task(base, {"films": GOOD}, names=["films", "weather"])
    with pytest.raises(ExpertError, match='Texts were given for "wether"'):
        naming_task(base, {"wether": GOOD}, names=["films", "weather"])


def test_a_classifier_learns_the_names_of_a_shelf(base, tmp_path):
    shelf = open_shelf(base, [make_expert(base, name) for name in ("films", "weather")])
    quick = TrainSettings(
        objective="next_token",
        reward="label",
        steps=30,
        rate=0.1,
        prompts=8,
        validate_every=15,
        max_new_tokens=4,
    )
    expert = train_classifier(shelf, {"films": GOOD, "weather": RAIN}, tmp_path / "sorter", settings=quick)
    decide = make_dispatcher("classifier", shelf, Material(classifier=load_expert(tmp_path / "sorter")))
    decision = decide([*GOOD, *RAIN])
    right = torch.tensor([[1.0, 0.0]] * 5 + [[0.0, 1.0]] * 5)
    assert (decision.weights == right).all(1).sum() >= 8
    assert expert.card.description == "sorts requests by films, weather"


def shots_of(shelf, weights, *, cue="answer", count=4):
    """Shots whose right answers are those of one mixture."""
    texts = [*TEXTS, "a letter about the review"][:count]
    with shelf.applied(torch.tensor([weights])) as model:
        said = answered(model, texts, cue, max_new_tokens=3)
    return tuple(Example(text, answer) for text, answer in zip(texts, said, strict=True))


def test_few_shots_find_the_expert_that_answers_them(shelf):
    """By rewards, as Transformer-squared has it."""
    shots = shots_of(shelf, [0.0, 1.0, 0.0])
    material = Material(
        shots=shots,
        cue="answer",
        fitness="reward",
        reward="exact",
        max_new_tokens=3,
        search=CrossEntropy(iterations=12, seed=1),
    )
    weights, found = mix_by_shots(shelf, material)
    base, alone = fitness_on(
        shelf, material, torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    ).likelihood.tolist()
    assert found.score[1] > base and weights[1] > 0.5
    assert alone > base
    decision = make_dispatcher("few-shot", shelf, material)(["anything", "else"])
    assert torch.equal(decision.weights, weights.expand(2, -1))
    assert "of 384 mixtures by cross-entropy on 4 shots" in decision.reasons[0]


@pytest.mark.parametrize("search", [CrossEntropy(iterations=12, seed=1), Cma(iterations=12, seed=1)])
def test_few_shots_make_the_right_answers_likely(shelf, search):
    shots = shots_of(shelf, [0.0, 1.0, 0.0])
    wide = Material(shots=shots, cue="answer", prior=10.0, search=search)
    weights, found = mix_by_shots(shelf, wide)
    assert weights[1] > 0.5 and found.score[0] > found.score[1]
    # The search is over what a plain loss says, less what the prior says.
    with shelf.applied(weights[None].double()) as model, torch.no_grad():
        lost = [
            float(answer_loss(model, [shot.text], [shot.answer], "answer"))
            * len(answer_ids(model, shot.answer))
            for shot in shots
        ]
    prior = float((weights.double() ** 2).sum()) / (2 * 10.0**2 * len(shots))
    assert math.isclose(found.score[0], -sum(lost) / len(shots) - prior, rel_tol=1e-3)
    decision = make_dispatcher("few-shot", shelf, wide)(["anything"])
    assert "nats per answer and prior over the base" in decision.reasons[0]


def test_a_narrow_prior_keeps_the_base(shelf):
    """Shots that speak for an expert a little do not move weights that are expected to be 0."""
    material = Material(
        shots=shots_of(shelf, [0.0, 0.1, 0.0], count=2),
        cue="answer",
        prior=1e-3,
        search=CrossEntropy(population=8, elites=2, iterations=3),
    )
    weights, found = mix_by_shots(shelf, material)
    assert weights.abs().max() < 0.01 and found.score[0] > found.score[1] - 1e-4
    with pytest.raises(ConfigError, match="give a prior above 0"):
        mix_by_shots(shelf, replace(material, prior=0.0))


def test_the_base_and_every_expert_alone_are_candidates(shelf, monkeypatch):
    from umaf.dispatch import few_shot

    seen, whole = [], few_shot._Shots.likelihood
    monkeypatch.setattr(
        few_shot._Shots, "likelihood", lambda self, weights: seen.append(weights) or whole(self, weights)
    )
    quick = CrossEntropy(population=5, elites=2, iterations=1)
    for per in ("model", "layer"):
        seen.clear()
        shots = shots_of(shelf, [1.0, 0.0, 0.0], count=2)
        mix_by_shots(shelf, Material(shots=shots, cue="answer", search=quick, per=per))
        asked = seen[-1] if per == "model" else seen[-1].mean(-1)
        assert torch.equal(asked[:4], torch.cat([torch.zeros(1, 3), torch.eye(3)]).double())


def test_per_layer_and_cma(shelf):
    shots = shots_of(shelf, [0.0, 1.0, 0.0], count=2)
    material = Material(
        shots=shots, cue="answer", per="layer", search=CrossEntropy(population=4, elites=2, iterations=2)
    )
    weights, found = mix_by_shots(shelf, material)
    assert weights.shape == (3, len(shelf.modules)) and found.numbers.shape == (6,)
    same_layer = [at for at, name in enumerate(shelf.modules) if ".0." in name]
    assert (weights[:, same_layer] == weights[:, same_layer[:1]]).all()
    by_cma = Material(shots=shots, cue="answer", search=Cma(population=4, iterations=2))
    assert mix_by_shots(shelf, by_cma)[0].shape == (3,)


def test_the_shots_alone_decide(shelf, monkeypatch):
    """The authors' release looks at the rest of the test for its choice; here nothing else is ever tokenised."""
    from umaf.dispatch import few_shot

    seen = []
    whole = few_shot.prompts_of
    monkeypatch.setattr(
        few_shot,
        "prompts_of",
        lambda model, texts, *a, **k: seen.append(texts) or whole(model, texts, *a, **k),
    )
    shots = shots_of(shelf, [1.0, 0.0, 0.0], count=2)
    quick = CrossEntropy(population=4, elites=2, iterations=2)
    mix_by_shots(shelf, Material(shots=shots, cue="answer", search=quick))
    assert seen == [[shot.text for shot in shots]]


def test_fitness_is_that_of_answers_drawn_one_by_one(shelf):
    """Rewards against answers drawn alone, likelihoods against the loss of the right answers."""
    shots = (*shots_of(shelf, [0.0, 1.0, 0.0], count=3), Example("of joy", "bad"))
    weights = torch.cat([torch.zeros(1, 3), torch.eye(3)])
    quick = fitness_on(shelf, Material(shots=shots, cue="answer", max_new_tokens=3), weights)
    for row, one in enumerate(weights):
        with shelf.applied(one[None]) as model:
            said = [answered(model, [shot.text], "answer", max_new_tokens=3)[0] for shot in shots]
            with torch.no_grad():
                lost = [float(answer_loss(model, [shot.text], [shot.answer], "answer")) for shot in shots]
        hits = sum(answer == shot.answer for answer, shot in zip(said, shots, strict=True))
        assert math.isclose(float(quick.accuracy[row]), 2 * hits / 4 - 1, abs_tol=1e-6)
        assert math.isclose(float(quick.likelihood[row]), -sum(lost) / 4, abs_tol=1e-4)
        assert row != 2 or hits == 3


def test_a_reward_of_numbers_is_drawn_and_judged(shelf):
    material = Material(shots=(Example("one two", "12"),), cue="answer", reward="numeric", max_new_tokens=2)
    assert fitness_on(shelf, material, torch.zeros(2, 3)).accuracy.tolist() == [-1.0, -1.0]


def test_code_is_not_run_unasked(shelf):
    with pytest.raises(ConfigError, match="runs what the model writes"):
        mix_by_shots(
            shelf,
            Material(
                shots=(Example("a", "b", ("assert True",)),), cue="answer", reward="code", fitness="reward"
            ),
        )


def test_no_shots(shelf):
    with pytest.raises(ExpertError, match="without shots"):
        make_dispatcher("few-shot", shelf)


def test_a_shot_longer_than_the_window(shelf):
    material = Material(shots=(Example("rain fell " * 200, "good"),), cue="answer")
    with pytest.raises(ProbeError, match="has room for"):
        make_dispatcher("few-shot", shelf, material)


def test_shots_cover_the_answers():
    many = [Example(str(at), "x" if at < 8 else "y") for at in range(10)]
    assert sorted({shot.answer for shot in equal_shots(many, 3)}) == ["x", "y"]
    assert len(equal_shots(many, 50)) == 10
