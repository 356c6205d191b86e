"""The parts of `solve`: goals, decisions, directions, Gauss-Newton."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from umaf.adapters import attach, cores, lora_modules, weight_of
from umaf.errors import ProbeError
from umaf.generation import newton
from umaf.generation.basis import narrowed, sensitive_basis
from umaf.generation.decisions import ask, batches, decide, divergence
from umaf.generation.goals import answer_goal, label_goal, labelled_goal, part
from umaf.generation.solve import factors_of, solve, split
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


def test_a_written_answer_is_judged_by_the_whole_vocabulary(pico) -> None:
    target = open_model(pico("llama"))
    answers = ["good", "bad music", "rain"]
    one = ask(target, answer_goal(TEXTS[:3], "first", answers))
    with torch.no_grad():
        logits, targets = answer_logits(target, TEXTS[:3], answers, "first")
        total = functional.cross_entropy(logits, targets, reduction="sum")
        assert torch.allclose(divergence(decide(one, range(3))).sum(), total, rtol=1e-5)


@pytest.mark.parametrize("labels", [2, 3, 4])
def test_few_choices_are_linearised_exactly(asked, labels) -> None:
    one = asked(labels)
    basis = sensitive_basis([one], lora_modules(one.model)[:3], 2)
    zero = torch.zeros(3, 2, 2)
    rows, residual = newton._linearise(one, range(5), basis, zero)
    slope = rows.T @ residual
    values = zero.clone().requires_grad_()
    with cores(one.model, basis, values):
        loss = divergence(decide(one, range(5))).sum()
    (gradient,) = torch.autograd.grad(loss, values)
    # The slope of least squares is the negative gradient of the divergence, however the curvature is split.
    assert torch.allclose(slope, -gradient.flatten(), atol=1e-4 * float(gradient.abs().max()))


def test_many_choices_keep_the_exact_slope_with_fewer_passes(asked) -> None:
    one = asked(6)
    basis = sensitive_basis([one], lora_modules(one.model)[:3], 2)
    rows, residual = newton._linearise(one, range(5), basis, torch.zeros(3, 2, 2))
    assert len(rows) == 5 * newton.CONTRASTS
    values = torch.zeros(3, 2, 2).requires_grad_()
    with cores(one.model, basis, values):
        loss = divergence(decide(one, range(5))).sum()
    (gradient,) = torch.autograd.grad(loss, values)
    assert torch.allclose(rows.T @ residual, -gradient.flatten(), atol=1e-4 * float(gradient.abs().max()))


def test_directions_are_orthogonal_and_right_on_average() -> None:
    residual = torch.randn(1, 1, 5, generator=torch.Generator().manual_seed(3))
    drawn = torch.stack([newton._directions(residual, seed)[0, 0] for seed in range(4000)])
    mean = (drawn @ drawn.mT).mean(0)
    assert torch.allclose(mean, torch.eye(5), atol=0.08)
    assert torch.allclose(drawn[0] @ (drawn[0].T @ residual[0, 0]), residual[0, 0], atol=1e-4)


def test_narrowing_keeps_the_largest_part_and_factors_are_exact(asked) -> None:
    one = asked()
    modules = lora_modules(one.model)[:2]
    basis = sensitive_basis([one], modules, 4)
    found = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(0))
    kept, cut = narrowed(basis, found, 2)
    for place, (name, (a, b)) in enumerate(factors_of(kept, cut).items()):
        u, v = basis[name]
        whole = u @ found[place] @ v.T
        best = torch.linalg.svdvals(whole)[2:].square().sum().sqrt()
        assert (b @ a).shape == weight_of(one.model, name).shape
        assert torch.allclose((whole - b @ a).norm(), best, rtol=1e-3)
        assert torch.allclose(a.norm(), b.norm(), rtol=1e-3)


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
