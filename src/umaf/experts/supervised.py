"""Next-token training: the comparison that Transformer-squared makes, on the wanted answers instead of rewards."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from umaf.experts.policy import Policy
from umaf.readout.generate import answer_loss
from umaf.tasks.task import Example


def next_token_loss(policy: Policy, examples: Sequence[Example], cue: str) -> Tensor:
    """Mean cross-entropy of the wanted answers, in nats per token; gradients flow into the policy's parameters.

    Args:
        policy: what is trained.
        examples: prompts with their answers.
        cue: the word before the answer.
    """
    with policy.active():
        return answer_loss(
            policy.model, [one.text for one in examples], [one.answer for one in examples], cue
        )
