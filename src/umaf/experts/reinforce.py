"""REINFORCE with a group baseline: answers are drawn, judged, and made likelier or less likely.

J = E[ A log pi(answer | prompt) ] - kl * KL(pi_new || pi_base), with A the reward less the mean reward of the group of
answers to the same prompt (leave-all-in mean; Shao et al., 2024), optionally divided by the group's deviation.

The divergence is the one Transformer-squared writes, KL(new || base), where its release computes KL(base || new). It is
taken token by token on answers drawn from the new policy: at each place the sum over the whole vocabulary of
pi_new (log pi_new - log pi_base), which is exact given the place and has no sampling noise of its own. Gradients pass
through pi_new at each place and not through which places were reached, as is usual.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from umaf import seeds
from umaf.experts.policy import Policy
from umaf.experts.rewards import Judge
from umaf.experts.rollout import Answers, draw, likelihood, prompts_of
from umaf.experts.settings import TrainSettings
from umaf.readout.encode import Encoded
from umaf.tasks.task import Example


@dataclass(frozen=True)
class Drawn:
    """Answers of some prompts with what they earned.

    Attributes:
        prompts: what was asked.
        answers: ``samples`` for each prompt.
        rewards: ``[prompt, sample]``.
    """

    prompts: Encoded
    answers: Answers
    rewards: Tensor


def advantages(rewards: Tensor, *, normalise: bool = False) -> Tensor:
    """Compare each answer with its group.

    Args:
        rewards: ``[prompt, sample]``.
        normalise: divide by the group's standard deviation; a group without one stays 0.

    Returns:
        ``[prompt, sample]``; each row sums to 0.

    Example:
        >>> advantages(torch.tensor([[1.0, -1.0], [1.0, 1.0]])).tolist()
        [[1.0, -1.0], [0.0, 0.0]]
    """
    centred = rewards - rewards.mean(1, keepdim=True)
    if not normalise:
        return centred
    deviation = rewards.std(1, unbiased=False, keepdim=True)
    return torch.where(deviation > 1e-6, centred / deviation.clamp(min=1e-6), torch.zeros_like(centred))


def rollout(
    policy: Policy, examples: Sequence[Example], cue: str, judge: Judge, *, settings: TrainSettings, step: int
) -> Drawn:
    """Draw and judge answers; what is drawn depends on the seed, the step and the prompts alone."""
    model = policy.model
    prompts = prompts_of(model, [one.text for one in examples], cue, max_new_tokens=settings.max_new_tokens)
    generator = seeds.generator(settings.seed, "rollout", step, examples[0].text)
    with policy.active():
        answers = draw(
            model,
            prompts,
            copies=settings.samples,
            temperature=settings.temperature,
            max_new_tokens=settings.max_new_tokens,
            generator=generator,
        )
    asked = [one for one in examples for _ in range(settings.samples)]
    rewards = torch.tensor(judge(answers.texts, asked), device=model.device)
    return Drawn(prompts, answers, rewards.reshape(len(examples), settings.samples))


def reinforce_loss(
    policy: Policy, drawn: Drawn, *, settings: TrainSettings, old: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Give what is minimised, the divergence from the base, and the log-probabilities of the drawn tokens.

    Args:
        policy: what is trained.
        drawn: answers with rewards.
        settings: temperature, weight of the divergence, clipping.
        old: log-probabilities ``[row, token]`` under the policy that drew; the present ones when None.

    Returns:
        The loss (summed over tokens, mean over answers), the divergence in nats per token, and ``[row, token]``
        log-probabilities without gradients.
    """
    answers = drawn.answers
    with policy.active():
        new = likelihood(policy.model, drawn.prompts, answers, temperature=settings.temperature)
    mask = answers.mask.float()
    chosen = new.gather(-1, answers.ids[..., None])[..., 0]
    gain = advantages(drawn.rewards, normalise=settings.normalise).reshape(-1, 1)
    ratio = (chosen - (chosen.detach() if old is None else old)).exp()
    worth = ratio * gain
    if settings.clip is not None:
        worth = torch.minimum(worth, ratio.clamp(1 - settings.clip, 1 + settings.clip) * gain)
    loss = -(worth * mask).sum(1).mean()
    apart = torch.zeros((), device=loss.device)
    if settings.kl > 0:
        with torch.no_grad(), policy.resting():
            base = likelihood(policy.model, drawn.prompts, answers, temperature=settings.temperature)
        at_places = (new.exp() * (new - base)).sum(-1)
        loss = loss + settings.kl * (at_places * mask).sum(1).mean()
        apart = (at_places.detach() * mask).sum() / mask.sum()
    return loss, apart, chosen.detach()
