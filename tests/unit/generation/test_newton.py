"""The parts of `solve`: goals, decisions, directions, Gauss-Newton."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from umaf.adapters import attach, cores, lora_modules, weight_of
from umaf.errors import ProbeError
from umaf.generation import newton
from umaf.generation.decisions import ask, batches, decide, divergence
from umaf.generation.goals import answer_goal, label_goal, labelled_goal, part
from umaf.generation.solve import solve, split
from umaf.models import open_model
from umaf.readout import answer_logits

TEXTS = tuple(
    f"{start} {rest}"
    for start in ("the film was", "a small town", "bad music", "good hills", "rain")
    for rest in ("good", "bad", "and the film", "and a town in rain", "hills and hills and hills")
)
LABELS = ("good", "bad", "film", "rain", "town", "music")


def _wanted(labels: int) -> torch.Tensor:
    sure = [labels - 1 if "hills" in text else len(text) % (labels - 1) for text in TEXTS]
    return functional.one_hot(torch.tensor(sure), labels).float() * 4


@pytest.fixture
def asked(pico):
    def make(labels: int = 3):
        target = open_model(pico("llama"))
        return ask(target, label_goal(TEXTS, "sentiment", LABELS[:labels], _wanted(labels)))

    return make


def test_goals_must_fit_and_empty_answers_leave() -> None:
    with pytest.raises(ProbeError, match="score the same probes"):
        label_goal(TEXTS, "x", LABELS, torch.zeros(2, 2))
    with pytest.raises(ProbeError, match="answered none"):
        answer_goal(["a", "b"], "x", ["", " "])
    assert answer_goal(["a", "b"], "x", ["", "yes"]).texts == ("b",)
    assert part(labelled_goal(["a", "b"], "x", ["u", "v"], ["v", "u"]), [1]).wanted.argmax().item() == 0


def test_too_few_probes_say_how_many_are_needed(asked) -> None:
    with pytest.raises(ProbeError, match=r"at least 16 probes.*found 3"):
        split(part(asked().goal, [0, 1, 2]), 0)


def test_batches_hold_every_probe_once(asked) -> None:
    one = asked()
    found = batches(one, 4)
    assert sorted(row for rows in found for row in rows) == list(range(len(TEXTS)))
    assert max(map(len, found)) == 4
    assert sorted(row for rows in batches(one, 2, [7, 3, 5]) for row in rows) == [3, 5, 7]


def test_a_written_answer_is_judged_by_the_whole_vocabulary(pico) -> None:
    target = open_model(pico("llama"))
    answers = ["good", "bad music", "rain"]
    one = ask(target, answer_goal(TEXTS[:3], "first", answers))
    with torch.no_grad():
        logits, targets = answer_logits(target, TEXTS[:3], answers, "first")
        total = functional.cross_entropy(logits, targets, reduction="sum")
        assert torch.allclose(divergence(decide(one, range(3))).sum(), total, rtol=1e-5)


def _factors(one, count: int = 3):
    """Factors that change answers, B of one module 0 as in a fresh LoRA."""
    draw = torch.Generator().manual_seed(5)
    found = {}
    for place, name in enumerate(lora_modules(one.model)[:count]):
        out, inner = weight_of(one.model, name).shape
        a, b = (torch.randn(shape, generator=draw) * 0.1 for shape in ((2, inner), (out, 2)))
        found[name] = (a, b if place else torch.zeros_like(b))
    return found


def _slope(one, rows, factors) -> torch.Tensor:
    """Gradient of the divergence, by plain backpropagation through the added factors."""
    leaves = {name: tuple(side.clone().requires_grad_() for side in pair) for name, pair in factors.items()}
    with cores(one.model, *newton.as_cores(leaves)):
        loss = divergence(decide(one, rows)).sum()
    flat = [side for pair in leaves.values() for side in pair]
    return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, flat)])


@pytest.mark.parametrize("labels", [2, 3, 4, 6])
def test_labels_are_linearised_with_the_exact_slope(asked, labels) -> None:
    one = asked(labels)
    factors = _factors(one)
    rows, residual = newton.linearised(one, range(5), factors)
    assert len(rows) == 5 * min(labels - 1, newton.CONTRASTS)
    # The slope of least squares is the negative gradient of the divergence, however the curvature is split.
    slope = _slope(one, range(5), factors)
    assert torch.allclose(rows.T @ residual, -slope, atol=1e-4 * float(slope.abs().max()))


def test_written_answers_are_linearised_with_the_exact_slope(pico) -> None:
    target = open_model(pico("gpt2"))
    one = ask(target, answer_goal(TEXTS[:4], "first", ["good", "bad music and rain", "rain", "a town"]))
    factors = _factors(one)
    rows, residual = newton.linearised(one, range(4), factors)
    assert len(rows) == 4 * newton.CONTRASTS
    slope = _slope(one, range(4), factors)
    assert torch.allclose(rows.T @ residual, -slope, atol=1e-4 * float(slope.abs().max()))


def test_directions_are_orthogonal_and_right_on_average() -> None:
    residual = torch.randn(1, 5, generator=torch.Generator().manual_seed(3))
    drawn = torch.stack([newton._directions(residual, seed)[0] for seed in range(4000)])
    mean = (drawn @ drawn.mT).mean(0)
    assert torch.allclose(mean, torch.eye(5), atol=0.08)
    assert torch.allclose(drawn[0] @ (drawn[0].T @ residual[0]), residual[0], atol=1e-4)


def test_probes_take_turns() -> None:
    turns = newton._turns(10, 4, seed=1)
    first, second = next(turns), next(turns)
    assert len(set(first + second)) == 8
    assert sorted(next(newton._turns(3, 9, seed=1))) == [0, 1, 2]


def test_a_step_that_helps_nobody_is_not_taken(asked, monkeypatch) -> None:
    one = asked()
    start = _factors(one)
    monkeypatch.setattr(
        newton, "_moved", lambda present, step: {n: (a, b + 9) for n, (a, b) in present.items()}
    )
    found = newton.gauss_newton([one], [one], start, iterations=5)
    assert len(found.history) == 1
    assert all(torch.equal(found.factors[name][1], b) for name, (_, b) in start.items())


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "bert", "t5", "mixtral"])
def test_solve_brings_answers_nearer_and_leaves_nothing(pico, architecture) -> None:
    target = open_model(pico(architecture))
    goal = label_goal(TEXTS, "sentiment", LABELS[:3], _wanted(3))
    before = {name: value.clone() for name, value in target.net.state_dict().items()}
    found = solve(target, [goal], rank=2, iterations=3)
    losses = [row["divergence"] for row in found.history]
    assert losses[-1] < losses[0]
    assert all(a.shape[0] == b.shape[1] == 2 for a, b in found.factors.values())
    assert all(torch.equal(before[name], value) for name, value in target.net.state_dict().items())
    assert not any(module._forward_hooks for module in target.net.modules())
    again = solve(target, [goal], rank=2, iterations=3)
    assert all(torch.equal(found.factors[name][1], again.factors[name][1]) for name in found.factors)
    with torch.no_grad():
        adapted = divergence(decide(ask(attach(target, found.factors), goal), range(len(TEXTS)))).mean()
        bare = divergence(decide(ask(target, goal), range(len(TEXTS)))).mean()
    assert adapted < bare


def test_goals_of_different_label_counts_share_one_system(pico) -> None:
    target = open_model(pico("llama"))
    goals = [
        label_goal(TEXTS, "sentiment", LABELS[:2], _wanted(2)),
        label_goal(TEXTS, "topic", LABELS[1:6], _wanted(5)),
    ]
    losses = [row["divergence"] for row in solve(target, goals, rank=2, iterations=3).history]
    assert losses[-1] < losses[0]
