"""The gradient that goes straight into the multipliers is that of the paper's W' = U diag(s z) V^T, in float64.

The slow version builds every full weight from its factors, runs the model on each answer alone with these weights,
and lets autograd go through the weights: what the training itself never does.
"""

from __future__ import annotations

import torch
from torch.func import functional_call

from umaf.experts.bound import bounded
from umaf.experts.decompose import decompose, svf_modules
from umaf.experts.policy import svf
from umaf.experts.reinforce import Drawn, reinforce_loss
from umaf.experts.rollout import draw, prompts_of
from umaf.experts.settings import TrainSettings
from umaf.models import open_model
from umaf.seeds import generator

TEXTS = ["rain fell on the hills", "a doctor wrote"]
KL = 0.3


def slow_loss(net, factored, raw, one):
    """J of the paper for one batch: -(1/N) sum A log pi + kl * KL(new || base), token by token, in float64."""
    weights = {}
    for name, part in factored.items():
        u, s, vh = part.u.double(), part.s.double(), part.vh.double()
        change = (u * (s * (bounded(raw[name]) - 1))) @ vh
        weights[f"{name}.weight"] = net.get_parameter(f"{name}.weight") + change
    total = torch.zeros((), dtype=torch.float64)
    rows, copies = len(one.answers.ids), one.rewards.shape[1]
    for row in range(rows):
        prompt = one.prompts.take([row // copies]).ids[0]
        said = one.answers.ids[row, : int(one.answers.mask[row].sum())]
        whole = torch.cat([prompt, said])[None]
        new = (
            functional_call(net, weights, kwargs={"input_ids": whole})
            .logits[0, len(prompt) - 1 : -1]
            .log_softmax(-1)
        )
        base = net(input_ids=whole).logits[0, len(prompt) - 1 : -1].log_softmax(-1).detach()
        group = one.rewards[row // copies].double()
        gain = group[row % copies] - group.mean()
        for place, token in enumerate(said.tolist()):
            total = total - gain * new[place, token] / rows
            total = total + KL * (new[place].exp() * (new[place] - base[place])).sum() / rows
    return total


def test_the_gradient_straight_into_z_is_the_one_through_full_weights(pico):
    model = open_model(pico("llama"))
    factored = decompose(model, svf_modules(model))
    policy = svf(model, factored)
    with torch.no_grad():
        for place, p in enumerate(policy.parameters.values()):
            p.add_(0.3 * torch.randn(p.shape, generator=generator(place, "start")))
    prompts = prompts_of(model, TEXTS, "answer", max_new_tokens=4)
    answers = draw(model, prompts, copies=3, max_new_tokens=4, generator=generator(0, "draw"))
    drawn = Drawn(prompts, answers, torch.tensor([[1.0, -1.0, -1.0], [0.5, 1.0, -1.0]]))
    loss, _, _ = reinforce_loss(policy, drawn, settings=TrainSettings(kl=KL))
    loss.backward()

    net = open_model(pico("llama")).net.double().requires_grad_(False)
    raw = {name: p.detach().double().requires_grad_(True) for name, p in policy.parameters.items()}
    slow_loss(net, factored, raw, drawn).backward()
    for name, p in policy.parameters.items():
        assert p.grad is not None
        torch.testing.assert_close(p.grad.double(), raw[name].grad, atol=2e-5, rtol=2e-3)
