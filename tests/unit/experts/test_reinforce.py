"""The objective: advantages, the gradient, the divergence and its direction, clipping."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from umaf.experts import reinforce
from umaf.experts.attach import attached
from umaf.experts.decompose import decompose, svf_modules
from umaf.experts.policy import ia3, lora, svf
from umaf.experts.reinforce import Drawn, advantages, reinforce_loss
from umaf.experts.rollout import draw, likelihood, prompts_of
from umaf.experts.settings import TrainSettings
from umaf.models import open_model
from umaf.seeds import generator

TEXTS = ["rain fell", "the small town letter"]


@given(st.lists(st.lists(st.sampled_from([-1.0, 0.25, 1.0]), min_size=4, max_size=4), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_advantages_are_centred_in_their_group_and_finite(rewards):
    for normalise in (False, True):
        found = advantages(torch.tensor(rewards), normalise=normalise)
        assert torch.isfinite(found).all() and found.sum(1).abs().max() < 1e-5
        equal = torch.tensor(rewards).std(1) == 0
        assert (found[equal] == 0).all()


def test_normalised_advantages_have_deviation_one():
    found = advantages(torch.tensor([[1.0, -1.0, -1.0, -1.0]]), normalise=True)
    assert found.std(1, unbiased=False).item() == pytest.approx(1.0)


@pytest.fixture(scope="module")
def drawn(pico):
    model = open_model(pico("gpt2"))
    prompts = prompts_of(model, TEXTS, "answer", max_new_tokens=4)
    answers = draw(model, prompts, copies=3, max_new_tokens=4, generator=generator(0, "draw"))
    rewards = torch.tensor([[1.0, -1.0, -1.0], [1.0, 1.0, -1.0]])
    return model, Drawn(prompts, answers, rewards)


def _policy(model, shift=0.0):
    policy = svf(model, decompose(model, svf_modules(model, ["mlp"])))
    with torch.no_grad():
        for place, parameter in enumerate(policy.parameters.values()):
            parameter.add_(shift * torch.randn(parameter.shape, generator=generator(place, "shift")))
    return policy


def test_the_gradient_is_reinforce_by_hand(drawn):
    model, one = drawn
    policy = _policy(model)
    loss, apart, _ = reinforce_loss(policy, one, settings=TrainSettings(kl=0.0))
    loss.backward()
    found = {name: p.grad.clone() for name, p in policy.parameters.items()}
    assert float(apart) == 0 and loss.item() == pytest.approx(-_plain(one), abs=1e-5)

    other = _policy(model)
    with other.active():
        logs = likelihood(model, one.prompts, one.answers)
    total = torch.zeros(())
    for row in range(6):
        gain = one.rewards[row // 3, row % 3] - one.rewards[row // 3].mean()
        for place in range(one.answers.ids.shape[1]):
            if one.answers.mask[row, place]:
                total = total - gain * logs[row, place, one.answers.ids[row, place]] / 6
    total.backward()
    for name, p in other.parameters.items():
        torch.testing.assert_close(found[name], p.grad, atol=1e-6, rtol=1e-4)


def _plain(one):
    """At ratio 1 the objective is the sum of each answer's advantage over its tokens."""
    return float((advantages(one.rewards).reshape(-1, 1) * one.answers.mask).sum(1).mean())


def test_no_weight_of_the_base_gets_a_gradient(drawn):
    model, one = drawn
    assert all(p.requires_grad for p in model.net.parameters())
    policy = _policy(model)
    loss, _, _ = reinforce_loss(policy, one, settings=TrainSettings(kl=0.1))
    loss.backward()
    assert all(p.grad is None and p.requires_grad for p in model.net.parameters())
    assert all(p.grad is not None for p in policy.parameters.values())


def test_the_divergence_is_of_the_new_from_the_base(drawn):
    """KL(new || base), the direction the paper writes; its release has the other one."""
    model, one = drawn
    policy = _policy(model, shift=2.0)
    _, apart, _ = reinforce_loss(policy, one, settings=TrainSettings(kl=0.1))
    with torch.no_grad():
        with policy.active():
            new = likelihood(model, one.prompts, one.answers)
        base = likelihood(model, one.prompts, one.answers)
    mask = one.answers.mask
    right = (new.exp() * (new - base)).sum(-1)[mask].mean()
    wrong = (base.exp() * (base - new)).sum(-1)[mask].mean()
    assert abs(float(right - wrong)) > 1e-4
    assert abs(float(apart - right)) < 0.05 * abs(float(right - wrong))


def test_the_divergence_pulls_back_to_the_base(drawn):
    model, one = drawn
    policy = _policy(model, shift=0.4)
    flat = Drawn(one.prompts, one.answers, torch.ones(2, 3))
    optimiser = torch.optim.SGD(list(policy.parameters.values()), lr=2.0)
    parts = []
    for _ in range(4):
        loss, apart, _ = reinforce_loss(policy, flat, settings=TrainSettings(kl=1.0))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        parts.append(float(apart))
    assert parts[-1] < parts[0]


def test_clipping_stops_a_ratio_that_has_gone_far(drawn):
    model, one = drawn
    policy = _policy(model)
    _, _, now = reinforce_loss(policy, one, settings=TrainSettings(kl=0.0))
    gain = advantages(one.rewards).reshape(-1, 1)
    # Where an answer was good and is likelier by far than when drawn (or bad and less likely), nothing more is gained.
    old = now - gain.sign() * 2.0
    settings = TrainSettings(kl=0.0, clip=0.2)
    loss, _, _ = reinforce_loss(policy, one, settings=settings, old=old)
    grads = torch.autograd.grad(loss, list(policy.parameters.values()))
    assert max(float(g.abs().max()) for g in grads) == 0
    loose, _, _ = reinforce_loss(policy, one, settings=TrainSettings(kl=0.0), old=old)
    grads = torch.autograd.grad(loose, list(policy.parameters.values()))
    assert max(float(g.abs().max()) for g in grads) > 0


def test_a_policy_begins_as_its_base_and_rests_as_it(pico):
    model = open_model(pico("llama"))
    prompts = prompts_of(model, TEXTS, "answer", max_new_tokens=3)
    answers = draw(model, prompts, copies=2, max_new_tokens=3, generator=generator(0, "draw"))
    with torch.no_grad():
        base = likelihood(model, prompts, answers)
        for policy in (
            svf(model, decompose(model, svf_modules(model))),
            lora(model, rank=2, seed=0),
            ia3(model),
        ):
            with policy.active():
                torch.testing.assert_close(
                    likelihood(policy.model, prompts, answers), base, atol=1e-4, rtol=1e-4
                )
            for p in policy.parameters.values():
                p.add_(0.3 * torch.randn(p.shape, generator=generator(0, "moved")))
            with policy.active():
                moved = likelihood(policy.model, prompts, answers)
            with policy.resting():
                rested = likelihood(policy.model, prompts, answers)
            assert (moved - base).abs().max() > 1e-3
            torch.testing.assert_close(rested, base, atol=1e-5, rtol=1e-5)


def test_svf_trains_few_numbers(pico):
    model = open_model(pico("llama"))
    factored = decompose(model, svf_modules(model))
    policy = svf(model, factored)
    assert policy.count == sum(min(one.u.shape[0], one.vh.shape[1]) for one in factored.values())
    assert policy.count < lora(model, rank=16, seed=0).count / 10


def test_attached_and_policy_are_one(drawn):
    model, one = drawn
    policy = _policy(model, shift=0.2)
    from umaf.experts.policy import multipliers

    factored = decompose(model, svf_modules(model, ["mlp"]))
    z = {name: value.detach() for name, value in multipliers(policy.parameters).items()}
    with torch.no_grad():
        with policy.active():
            found = likelihood(model, one.prompts, one.answers)
        with attached(model, factored, z):
            wanted = likelihood(model, one.prompts, one.answers)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_the_module_says_which_divergence_it_uses():
    assert "KL(new || base)" in (reinforce.__doc__ or "")
