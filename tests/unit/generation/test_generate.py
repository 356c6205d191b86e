"""Goals become factors: routes by name, identity, truncation, and a target that stays as it was."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests.texts import CUE, LABELS, PROBES
from umaf.adapters import attach, load_adapter, lora_modules, norms, write_lora
from umaf.errors import AdapterError, ConfigError, NumericalError, ProbeError, RegistryError
from umaf.generation.decisions import ask
from umaf.generation.distill import RATE, distill, divergence_from
from umaf.generation.generate import ROUTES, generate, shorten
from umaf.generation.goals import answer_goal, label_goal
from umaf.generation.solve import Solved
from umaf.generation.train import Schedule, _round, nothing
from umaf.models import open_model, weights_hash
from umaf.models.quiet import quiet
from umaf.readout import encode, label_scores


@pytest.fixture
def target(pico):
    return open_model(pico("llama"))


@pytest.fixture(scope="module")
def goal(pico):
    return label_goal(PROBES, CUE, LABELS, label_scores(open_model(pico("bert")), PROBES, LABELS, CUE))


def hooks(net):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())


def test_both_routes_are_registered():
    assert ROUTES.names() == ["distill", "generate", "solve"]


@pytest.mark.parametrize("options", [None, {"iterations": 2}])
def test_solve_comes_nearer_and_leaves_the_target(target, goal, options):
    before = weights_hash(target), divergence_from(target, [goal])
    made = generate(target, [goal], rank=4, options=options)
    assert made.route == "solve" and made.seconds > 0
    assert divergence_from(attach(target, made.factors), [goal]) < 0.5 * before[1]
    assert weights_hash(target) == before[0] and hooks(target.net) == 0
    assert all(a.shape[0] == b.shape[1] == 4 for a, b in made.factors.values())


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "t5", "bert", "mixtral"])
def test_distill_leaves_the_target_as_it_was(pico, goal, architecture):
    target = open_model(pico(architecture))
    grads = [p.requires_grad for p in target.net.parameters()]
    if architecture == "bert":
        goal = dataclasses.replace(goal, wanted=goal.wanted.flip(1))
    before = weights_hash(target)
    made = generate(target, [goal], route="distill", rank=2, options={"steps": 3})
    assert weights_hash(target) == before and hooks(target.net) == 0
    assert [p.requires_grad for p in target.net.parameters()] == grads
    assert not any("lora" in name for name, _ in target.net.named_modules())
    assert made.history[-1]["steps"] == 3 and made.history[-1]["divergence"] < 10


@pytest.mark.parametrize("iterations", [0, 2])
def test_distill_begins_fresh_or_where_a_solve_ends(target, goal, iterations):
    trained = distill(target, [goal], rank=4, steps=40, rate=5e-3, iterations=iterations)
    row = trained.history[-1]
    assert row["divergence"] < row["bare"] == pytest.approx(divergence_from(target, [goal]))
    assert (len(trained.history) > 1) == bool(iterations)
    assert list(trained.factors) == lora_modules(target)


def test_the_rate_of_distill_follows_the_width(target, goal):
    given, found = (
        distill(target, [goal], rank=2, steps=2, rate=rate).factors for rate in (RATE / target.width, None)
    )
    assert all(torch.equal(given[name][i], found[name][i]) for name in given for i in (0, 1))


def test_a_round_of_training_holds_every_probe_at_most_once(target, goal):
    one, draw = ask(target, goal), np.random.default_rng(0)
    found = _round(one, Schedule(batch_size=4), draw)
    rows = [row for batch in found for row in batch]
    assert len(set(rows)) == len(rows) == 24 and all(len(batch) == 4 for batch in found)


@pytest.mark.parametrize("route", ["solve", "distill"])
def test_a_seed_gives_the_same_bits(pico, goal, route):
    options = {"steps": 2} if route == "distill" else None
    one, two = (
        generate(open_model(pico("gpt2")), [goal], route=route, rank=2, seed=3, options=options) for _ in "ab"
    )
    assert all(
        torch.equal(x, y)
        for name in one.factors
        for x, y in zip(one.factors[name], two.factors[name], strict=True)
    )


def test_no_goals_is_the_adapter_that_changes_nothing(target):
    made = generate(target, [], rank=3)
    assert list(made.factors) == lora_modules(target) and set(norms(made.factors).values()) == {0.0}
    assert all(a.abs().max() > 0 and not b.any() for a, b in made.factors.values())
    assert "changes nothing" in made.history[0]["note"]


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"route": "slove"}, RegistryError, 'Did you mean "solve"'),
        ({"rank": 0}, ConfigError, "at least 1"),
        ({"rank": 64}, ConfigError, "only 16 dimensions|only 32 dimensions"),
        ({"options": {"steps": 3}}, ConfigError, "'steps', which it does not have; it has iterations"),
        ({"options": {"rank": 3}}, ConfigError, "does not have"),
    ],
)
def test_mistakes_are_one_sentence(target, goal, asked, error, words):
    with pytest.raises(error, match=words):
        generate(target, [goal], **asked)


def test_a_model_that_cannot_receive(pico, goal):
    with pytest.raises(AdapterError, match="not a target"):
        generate(open_model(pico("rwkv")), [goal])


def test_too_few_answers(target):
    with pytest.raises(ProbeError, match="at least 16"):
        generate(target, [answer_goal(PROBES, CUE, ["x"] * 10 + [""] * 15)], rank=2)


@pytest.mark.parametrize(
    ("problem", "words"), [(torch.linalg.LinAlgError("singular"), "without a solution"), (None, "NaN")]
)
def test_numbers_that_go_wrong(target, goal, monkeypatch, problem, words):
    def route(model, goals, *, rank, seed, truncate):
        if problem:
            raise problem
        return Solved({"m": (torch.full((1, 2), torch.nan), torch.zeros(2, 1))}, ())

    monkeypatch.setattr(ROUTES, "get", lambda _: route)
    with pytest.raises(NumericalError, match=words):
        generate(target, [goal], rank=2)


@pytest.mark.parametrize(("architecture", "function"), [("llama", True), ("llama", False), ("bert", False)])
def test_long_probes_are_cut_only_when_asked_and_said(pico, goal, architecture, function):
    target = open_model(pico(architecture))
    long = ("the film was good and " * 60 + "bad", *PROBES[1:])
    goal = dataclasses.replace(goal, texts=long)
    if function:
        goal = answer_goal(long, CUE, ["good"] * len(long))
    with pytest.raises(ProbeError, match="truncation"):
        generate(target, [goal], rank=2, options={"iterations": 1})
    made = generate(target, [goal], rank=2, options={"iterations": 1}, truncate=True)
    assert "1 of 25 probes were cut" in made.history[0]["note"]


def test_a_cut_text_fits_exactly(pico):
    target = open_model(pico("gpt2"))
    goal = answer_goal(("the film was good and " * 60, "the music"), CUE, ["good"] * 2)
    short, cut = shorten(target, goal)
    assert cut == 1 and short.texts[1] == "the music" and goal.texts[0].startswith(short.texts[0])
    batch = encode(target, short.texts, CUE, max_length=target.window - 2)
    assert int(batch.mask.sum(1).max()) >= target.window - 6


@pytest.mark.parametrize(("route", "options"), [("solve", {"iterations": 1}), ("distill", {"steps": 1})])
def test_stacked_experts_stay_as_they_are_and_that_is_said(pico, route, options):
    target = open_model(pico("mixtral"))
    goal = label_goal(PROBES, CUE, LABELS, torch.zeros(len(PROBES), len(LABELS)))
    made = generate(target, [goal], route=route, rank=2, options=options)
    assert set(made.factors) == set(lora_modules(target)) < set(lora_modules(target, experts=True))
    assert all(".self_attn." in name for name in made.factors)
    assert [row["note"] for row in made.history if "note" in row] == [
        f"the stacked experts of {target.name} stay as they are; its attention is adapted"
    ]
    plain = generate(open_model(pico("gpt2")), [goal], route=route, rank=2, options=options)
    assert not [row for row in plain.history if "note" in row]


def test_distill_trains_stacked_experts_where_asked(pico, goal, tmp_path):
    target = open_model(pico("mixtral"))
    before = weights_hash(target)
    options = {"steps": 6, "experts": True}
    made = generate(target, [goal], route="distill", rank=2, options=options)
    assert set(made.factors) == set(lora_modules(target, experts=True)) > set(lora_modules(target))
    stacked = [name for name in made.factors if name not in lora_modules(target)]
    sizes = norms(made.factors)
    assert len(stacked) == 2 * target.layers and all(sizes[name] > 0 for name in stacked)
    # Every expert that a probe passes through has moved, not only the first.
    moved = [b.flatten(1).abs().sum(1) > 0 for name in stacked for b in (made.factors[name][1],)]
    assert all(int(one.sum()) >= 2 for one in moved)
    assert not [row for row in made.history if "stay as they are" in row.get("note", "")]
    assert weights_hash(target) == before and hooks(target.net) == 0

    write_lora(tmp_path / "a", target, made.factors, provenance={})
    inside = label_scores(attach(target, made.factors), PROBES, LABELS, CUE)
    plain = AutoModelForCausalLM.from_pretrained(target.name)
    with quiet():
        net = PeftModel.from_pretrained(plain, str(tmp_path / "a"))
        report = net.load_adapter(str(tmp_path / "a"), adapter_name="default")
    assert not [key for key in report.missing_keys if "lora_" in key] and not report.unexpected_keys
    read = dataclasses.replace(target, net=net.eval())
    for reader in (read, load_adapter(target, tmp_path / "a")):
        torch.testing.assert_close(label_scores(reader, PROBES, LABELS, CUE), inside, atol=1e-5, rtol=1e-5)
    with pytest.raises(ConfigError, match="'experts', which it does not have"):
        generate(target, [goal], rank=2, options={"experts": True})


def test_experts_go_on_from_a_start_and_from_a_solve(pico, goal):
    target = open_model(pico("mixtral"))
    every = set(lora_modules(target, experts=True))
    for more in ({"iterations": 1}, {"start": nothing(target, 2, seed=7)}):
        made = distill(target, [goal], rank=2, steps=1, experts=True, **more)
        assert set(made.factors) == every
    assert set(distill(target, [goal], rank=2, steps=1).factors) == set(lora_modules(target))
