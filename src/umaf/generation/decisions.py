"""A goal as decisions of the target: at a place in a prompt, a distribution over a few choices.

A classification is one decision per probe among the labels. A function is one decision per token of the wanted
answer, among that token and its strongest rivals. Both become logits ``[text, step, choice]`` with a mask, so that
`solve` and `distill` know one kind of thing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from umaf.generation.goals import Goal, part
from umaf.models import Model
from umaf.readout import Encoded, Readout, answer_logits, label_logits, make_readout, prepare
from umaf.readout.generate import answer_ids

RIVALS = 3


@dataclass(frozen=True)
class Decisions:
    """What the target decides on some probes.

    Attributes:
        logits: the target's logits of the choices; gradients flow.
        wanted: wanted probabilities of the choices.
        mask: which steps exist; answers differ in length.
    """

    logits: Float[Tensor, "text step choice"]
    wanted: Float[Tensor, "text step choice"]
    mask: Bool[Tensor, "text step"]


@dataclass(frozen=True)
class Asked:
    """A goal made ready for one target: tokenised once, read often."""

    model: Model
    goal: Goal
    readout: Readout | None
    batch: Encoded | None
    lengths: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.goal.texts)


def ask(model: Model, goal: Goal, *, truncate: bool = False) -> Asked:
    """Prepare a goal for a target.

    Raises:
        ProbeError: a probe does not fit the target's window.
        TaskError: the target cannot be read for these labels, or cannot write answers.
    """
    if goal.is_function:
        lengths = tuple(len(answer_ids(model, answer)) for answer in goal.answers)
        return Asked(model, goal, None, None, lengths)
    readout = make_readout(model, goal.labels, goal.cue)
    return Asked(model, goal, readout, prepare(model, goal.texts, readout, truncate=truncate))


def decide(
    asked: Asked, rows: Sequence[int], *, choices: Int[Tensor, "text step choice"] | None = None
) -> Decisions:
    """Read the target's decisions on some probes.

    Args:
        asked: a prepared goal.
        rows: which probes.
        choices: for a function, the tokens among which it is decided; the wanted token and the whole vocabulary's
            strongest rivals when not given.
    """
    rows = list(rows)
    if asked.readout is not None and asked.batch is not None:
        logits = label_logits(asked.model, asked.batch.take(rows), asked.readout)[:, None]
        wanted = asked.goal.wanted[rows].exp().to(logits.device)[:, None]
        return Decisions(logits, wanted, torch.ones(logits.shape[:2], dtype=torch.bool, device=logits.device))
    full, targets, mask = _answers(asked, rows)
    if choices is None:
        choices = rivals(full, targets)
    wanted = torch.zeros(choices.shape, device=full.device)
    wanted[..., 0] = 1
    return Decisions(full.gather(-1, choices), wanted, mask)


def rivals(logits: Float[Tensor, "text step token"], targets: Int[Tensor, "text step"]) -> Int[Tensor, "text step choice"]:
    """Give the wanted token first, then the strongest other tokens."""
    others = logits.detach().scatter(-1, targets[..., None], -torch.inf)
    return torch.cat([targets[..., None], others.topk(RIVALS, dim=-1).indices], dim=-1)


def choose(asked: Asked, rows: Sequence[int]) -> Int[Tensor, "text step choice"] | None:
    """Fix the choices of a function at the target's present rivals; a classification has none to fix."""
    if asked.readout is not None:
        return None
    with torch.no_grad():
        full, targets, _ = _answers(asked, list(rows))
    return rivals(full, targets)


def _answers(asked: Asked, rows: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Scatter the flat answer logits to [text, step, token]."""
    goal = part(asked.goal, rows)
    flat, targets = answer_logits(asked.model, goal.texts, goal.answers, goal.cue)
    lengths = torch.tensor([asked.lengths[i] for i in rows], device=flat.device)
    mask = torch.arange(int(lengths.max()), device=flat.device) < lengths[:, None]
    logits = flat.new_zeros(*mask.shape, flat.shape[-1]).masked_scatter(mask[..., None], flat)
    return logits, torch.zeros_like(mask, dtype=torch.long).masked_scatter(mask, targets), mask


def divergence(decisions: Decisions) -> Float[Tensor, " text"]:
    """Kullback-Leibler divergence of the target from the wanted answers, summed over steps, per probe, in nats."""
    wanted = decisions.wanted
    log_wanted = wanted.clamp_min(1e-12).log()
    each = (wanted * (log_wanted - decisions.logits.log_softmax(-1))).sum(-1)
    return (each * decisions.mask).sum(-1)
