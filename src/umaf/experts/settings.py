"""How an expert is trained: one frozen value, for Python, the command line and the card."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Objective = Literal["reinforce", "next_token"]


class TrainSettings(BaseModel):
    """How an expert is trained.

    Attributes:
        objective: "reinforce" learns from rewards of answers it draws, "next_token" from the wanted answers.
        reward: a name in the registry of rewards; the task's own when None.
        steps: gradient steps at most.
        rate: learning rate of Adam; warmed up over the first twentieth of the steps.
        prompts: prompts per step.
        samples: answers drawn per prompt: the group whose mean reward is the baseline.
        temperature: of the answers drawn.
        max_new_tokens: longest answer.
        kl: weight of KL(new || base), in nats per token.
        normalise: divide a group's advantages by their standard deviation (GRPO; Shao et al., 2024).
        clip: how far a token's probability ratio may leave 1 (PPO); matters when `passes` is above 1.
        passes: gradient steps on the same answers.
        grad_clip: largest norm of the gradient.
        validate_every: steps between two looks at the validation split.
        validation: validation examples looked at.
        patience: looks without a better score before training stops; 0 never stops early.
        flat_steps: steps in a row without any advantage before training stops.
        keep_every: steps between two states on disk.
        run_code: allow the reward "code" to run what the model writes.
        reward_seconds: how long one call of a reward may take.
        too_long: "stop" or "drop": what to do with examples that do not fit the window.
        bfloat16: multiply matrices in bfloat16.
        rank: of a LoRA, where one is trained in place of an expert.
        seed: of everything random.

    Example:
        >>> TrainSettings(steps=20).samples
        8
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    objective: Objective = "reinforce"
    reward: str | None = None
    steps: int = Field(default=120, ge=1)
    rate: float = Field(default=0.02, gt=0)
    prompts: int = Field(default=16, ge=1)
    samples: int = Field(default=8, ge=2)
    temperature: float = Field(default=1.0, gt=0)
    max_new_tokens: int = Field(default=16, ge=1)
    kl: float = Field(default=0.02, ge=0)
    normalise: bool = False
    clip: float | None = Field(default=None, gt=0, lt=1)
    passes: int = Field(default=1, ge=1)
    grad_clip: float = Field(default=1.0, gt=0)
    validate_every: int = Field(default=10, ge=1)
    validation: int = Field(default=100, ge=1)
    patience: int = Field(default=6, ge=0)
    flat_steps: int = Field(default=20, ge=1)
    keep_every: int = Field(default=5, ge=1)
    run_code: bool = False
    reward_seconds: float = Field(default=10.0, gt=0)
    too_long: Literal["stop", "drop"] = "stop"
    bfloat16: bool = False
    rank: int = Field(default=16, ge=1)
    seed: int = 0
