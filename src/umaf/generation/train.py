"""The one training loop: a LoRA, by gradient steps towards goals.

`distill` calls it with the source's answers and the solved adapter as its start; fine-tuning on labels (the oracle
that recoveries are measured against) calls it with true answers and a fresh LoRA.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from umaf import seeds
from umaf.adapters import lora_modules, sharing_copy
from umaf.errors import NumericalError
from umaf.generation.decisions import Asked, ask, decide, divergence
from umaf.generation.goals import Goal, part
from umaf.models import Model, bare
from umaf.models.quiet import quiet
from umaf.readout import answer_loss

Factors = Mapping[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        steps: gradient steps.
        rate: peak learning rate of AdamW; linear warm-up over a tenth, then cosine to a tenth of it.
        batch_size: probes in one step.
        bfloat16: multiply matrices in bfloat16 (parameters stay float32); pays from a width of about 256 on.
    """

    steps: int = 300
    rate: float = 5e-3
    batch_size: int = 16
    bfloat16: bool = False


def train_lora(
    model: Model, goals: Sequence[Goal], *, rank: int, schedule: Schedule, seed: int = 0, start: Factors | None = None
) -> dict[str, tuple[Tensor, Tensor]]:
    """Train a LoRA on all linear modules of a model, and leave the model as it was.

    Args:
        model: the target.
        goals: what it should answer; drawn in proportion to their weights.
        rank: rank of every module.
        schedule: how long and how fast.
        seed: for the fresh LoRA and the order of probes.
        start: factors to begin with; a fresh LoRA (which changes nothing) when not given.

    Returns:
        Module name -> (A [rank, in], B [out, rank]), float32, with dW = B A.

    Raises:
        NumericalError: the loss became NaN or infinite.
    """
    with _lora(model, rank, seed, start) as (wrapped, layers):
        optimise([ask(wrapped, goal) for goal in goals], schedule, seed=seed)
        return {
            name: (layer.lora_A["default"].weight.detach().clone(), layer.lora_B["default"].weight.detach().clone())
            for name, layer in layers.items()
        }


def optimise(asked: Sequence[Asked], schedule: Schedule, *, seed: int = 0) -> None:
    """Train whatever parameters of the asked model require gradients, in place.

    Raises:
        NumericalError: the loss became NaN or infinite.
    """
    model = asked[0].model
    parameters = [p for p in model.net.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=schedule.rate, betas=(0.9, 0.98), weight_decay=0.0)
    draw = np.random.default_rng(seeds.derive(seed, "optimise", "order"))
    for step, (one, rows) in enumerate(_batches(asked, schedule, draw)):
        for group in optimiser.param_groups:
            group["lr"] = _rate(step, schedule)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=schedule.bfloat16):
            value = loss(one, rows)
        if not torch.isfinite(value):
            raise NumericalError(
                f"Training {model.name} gave a loss of {float(value)} at step {step}; "
                "lower the learning rate, or check the probes."
            )
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)


def loss(one: Asked, rows: Sequence[int]) -> Tensor:
    """Mean divergence from the wanted labels, or cross-entropy of the wanted answer over the whole vocabulary."""
    if one.goal.is_function:
        chosen = part(one.goal, rows)
        return answer_loss(one.model, chosen.texts, chosen.answers, chosen.cue)
    return divergence(decide(one, rows)).mean()


def _batches(asked: Sequence[Asked], schedule: Schedule, draw: np.random.Generator) -> Iterator[tuple[Asked, list[int]]]:
    """Go through each goal's probes in shuffled rounds; which goal comes next follows the weights."""
    weights = np.array([one.goal.weight for one in asked])
    queues: list[list[int]] = [[] for _ in asked]
    for _ in range(schedule.steps):
        which = int(draw.choice(len(asked), p=weights / weights.sum()))
        while len(queues[which]) < min(schedule.batch_size, len(asked[which])):
            queues[which] += draw.permutation(len(asked[which])).tolist()
        rows, queues[which] = queues[which][: schedule.batch_size], queues[which][schedule.batch_size :]
        yield asked[which], rows


def _rate(step: int, schedule: Schedule) -> float:
    warm = max(1, schedule.steps // 10)
    if step < warm:
        return schedule.rate * (step + 1) / warm
    return schedule.rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, schedule.steps - warm))))


@contextmanager
def _lora(model: Model, rank: int, seed: int, start: Factors | None):
    """Put PEFT's LoRA on a copy of the target's modules that shares its weights."""
    names = list(start) if start is not None else lora_modules(model)
    pattern = "|".join(re.escape(name) for name in names)
    config = LoraConfig(
        r=rank, lora_alpha=rank, target_modules=f"^({pattern})$", fan_in_fan_out=model.family.conv1d
    )
    needed = [(p, p.requires_grad) for p in model.net.parameters()]
    try:
        with torch.random.fork_rng(devices=[]), quiet():
            torch.manual_seed(seeds.derive(seed, "train_lora", "fresh"))
            net = get_peft_model(sharing_copy(bare(model.net)), config)
        layers = {name: bare(net).get_submodule(name) for name in names}
        if start is not None:
            with torch.no_grad():
                for name, (a, b) in start.items():
                    layers[name].lora_A["default"].weight.copy_(a)
                    layers[name].lora_B["default"].weight.copy_(b)
        yield dataclasses.replace(model, net=net), layers
    finally:
        for parameter, need in needed:
            parameter.requires_grad_(need)
