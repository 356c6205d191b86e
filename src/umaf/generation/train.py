"""The one training loop: a LoRA, by gradient steps towards goals.

`distill` calls it with the source's answers; fine-tuning on labels (the oracle that recoveries are measured against)
calls it with true answers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from umaf import seeds
from umaf.adapters import Factors, attach, factors_of, lora_modules, weight_of
from umaf.errors import NumericalError
from umaf.generation.decisions import Asked, ask, decide, divergence
from umaf.generation.goals import Goal, part
from umaf.models import Model
from umaf.pulse import heard, tell
from umaf.readout import answer_loss

DEAD = 1e-4
"""A direction this much shorter than a module's longest is unused."""


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
    model: Model,
    goals: Sequence[Goal],
    *,
    rank: int,
    schedule: Schedule,
    seed: int = 0,
    start: Factors | None = None,
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
    wrapped = attach(model, nothing(model, rank, seed) if start is None else start, trainable=True)
    optimise([ask(wrapped, goal) for goal in goals], schedule, seed=seed)
    return factors_of(wrapped)


def nothing(
    model: Model, rank: int, seed: int = 0, *, experts: bool = False
) -> dict[str, tuple[Tensor, Tensor]]:
    """Give the adapter that changes nothing, B = 0 for every module; it can be trained on.

    Args:
        model: the target.
        rank: of every module.
        seed: of the As.
        experts: with factors for the stacked experts of a mixture too, `[expert, rank, in]` and `[expert, out, rank]`.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> from umaf.models import FAMILIES
        >>> net = BertModel(BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2))
        >>> factors = nothing(Model(net.eval(), None, "tiny", FAMILIES["bert"], "base"), rank=2)
        >>> len(factors), max(float(b.norm()) for _, b in factors.values())
        (6, 0.0)
    """
    factors = {}
    for name in lora_modules(model, experts=experts):
        *stacked, out, inner = weight_of(model, name).shape
        a = fresh(torch.empty(*stacked, rank, inner), seed, name)
        factors[name] = (a, torch.zeros(*stacked, out, rank))
    return factors


def fresh(like: Tensor, seed: int, name: str) -> Tensor:
    """Draw an A as a fresh LoRA has it: uniform with the bound 1 / sqrt(in) (Hu et al., 2021, as in PEFT)."""
    draw = seeds.generator(seed, "fresh", name)
    return (torch.rand(like.shape, generator=draw) * 2 - 1) / like.shape[-1] ** 0.5


def widened(factors: Factors, rank: int, seed: int = 0) -> dict[str, tuple[Tensor, Tensor]]:
    """Give an adapter the directions that it leaves unused, so that training can use them; it says the same as before.

    Args:
        factors: rank-reduced factors, such as a generated adapter's, whose writers have one direction per label.
        rank: what every module gets, where it has less; unused are directions of length 0 too.
        seed: of the fresh As; their Bs are 0.

    Example:
        >>> few = {"m": (torch.ones(1, 3), torch.ones(2, 1))}
        >>> a, b = widened(few, 4)["m"]
        >>> list(a.shape), (b @ a).unique().tolist(), bool((a.norm(dim=1) > 0).all())
        ([4, 3], [1.0], True)
    """
    found = {}
    for name, (a, b) in factors.items():
        lengths = a.norm(dim=-1) * b.norm(dim=-2)
        used = (lengths > DEAD * lengths.amax(-1, keepdim=True)).to(a)
        missing = max(rank - a.shape[-2], 0)
        new = fresh(torch.empty(*a.shape[:-2], a.shape[-2] + missing, a.shape[-1]), seed, name).to(a)
        kept, rest = new[..., : a.shape[-2], :], new[..., a.shape[-2] :, :]
        down = torch.cat([torch.where(used[..., None] > 0, a, kept), rest], dim=-2)
        up = torch.cat([b * used[..., None, :], b.new_zeros(*b.shape[:-1], missing)], dim=-1)
        found[name] = (down, up)
    return found


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
            tell(f"train {model.name}", step + 1, loss=value.item())
            raise NumericalError(
                f"Training {model.name} gave a loss of {float(value)} at step {step}; "
                "lower the learning rate, or check the probes."
            )
        value.backward()
        slope = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        if heard():
            numbers = {"loss": value.item(), "gradient": slope.item(), "rate": _rate(step, schedule)}
            tell(f"train {model.name}", step + 1, **numbers)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)


def loss(one: Asked, rows: Sequence[int]) -> Tensor:
    """Mean divergence from the wanted labels, or cross-entropy of the wanted answer over the whole vocabulary."""
    if one.goal.is_function:
        chosen = part(one.goal, rows)
        return answer_loss(one.model, chosen.texts, chosen.answers, chosen.cue)
    return divergence(decide(one, rows)).mean()


def _batches(
    asked: Sequence[Asked], schedule: Schedule, draw: np.random.Generator
) -> Iterator[tuple[Asked, list[int]]]:
    """Go through each goal's probes in shuffled rounds; which goal comes next follows the weights."""
    weights = np.array([one.goal.weight for one in asked])
    queues: list[list[list[int]]] = [[] for _ in asked]
    for _ in range(schedule.steps):
        which = int(draw.choice(len(asked), p=weights / weights.sum()))
        if not queues[which]:
            queues[which] = _round(asked[which], schedule, draw)
        yield asked[which], queues[which].pop()


def _round(one: Asked, schedule: Schedule, draw: np.random.Generator) -> list[list[int]]:
    """Part a goal's probes into batches at random; some at the end of the round may be left out."""
    size = min(schedule.batch_size, len(one))
    order = draw.permutation(len(one)).tolist()
    return [order[start : start + size] for start in range(0, len(order) - size + 1, size)]


def _rate(step: int, schedule: Schedule) -> float:
    warm = max(1, schedule.steps // 10)
    if step < warm:
        return schedule.rate * (step + 1) / warm
    return schedule.rate * (
        0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, schedule.steps - warm)))
    )
