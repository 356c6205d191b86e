"""A goal as decisions of the target: at a place in a prompt, a distribution over a few choices.

A classification is one decision per probe among the labels. A function is one decision per token of the wanted
answer: that token, or any other of the whole vocabulary. Both become logits ``[text, step, choice]`` with a mask, so
that every closed form knows one kind of thing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from umaf.generation.goals import Goal, part
from umaf.models import Model
from umaf.readout import Encoded, Readout, answer_logits, label_logits, make_readout, prepare
from umaf.readout.generate import answer_ids


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
        lengths = tuple(len(answer_ids(model, answer, ended=goal.cue is not None)) for answer in goal.answers)
        return Asked(model, goal, None, None, lengths)
    readout = make_readout(model, goal.labels, goal.cue)
    return Asked(model, goal, readout, prepare(model, goal.texts, readout, truncate=truncate))


def decide(asked: Asked, rows: Sequence[int]) -> Decisions:
    """Read the target's decisions on some probes.

    For a function the two choices are the wanted token and all others together, whose joint logit is taken as 0:
    the first logit is then ``z_wanted - logsumexp(z_others)``, and its cross-entropy that of the whole vocabulary.

    Args:
        asked: a prepared goal.
        rows: which probes.
    """
    rows = list(rows)
    if asked.readout is not None and asked.batch is not None:
        logits = label_logits(asked.model, asked.batch.take(rows), asked.readout)[:, None]
        wanted = asked.goal.wanted[rows].exp().to(logits.device)[:, None]
        return Decisions(logits, wanted, torch.ones(logits.shape[:2], dtype=torch.bool, device=logits.device))
    goal = part(asked.goal, rows)
    flat, targets = answer_logits(asked.model, goal.texts, goal.answers, goal.cue)
    others = flat.scatter(-1, targets[:, None], -torch.inf).logsumexp(-1)
    odds = flat.gather(-1, targets[:, None])[:, 0] - others
    lengths = torch.tensor([asked.lengths[i] for i in rows], device=flat.device)
    mask = torch.arange(int(lengths.max()), device=flat.device) < lengths[:, None]
    odds = odds.new_zeros(mask.shape).masked_scatter(mask, odds)
    wanted = torch.tensor([1.0, 0.0], device=flat.device).expand(*mask.shape, 2)
    return Decisions(torch.stack([odds, torch.zeros_like(odds)], dim=-1), wanted, mask)


def batches(asked: Asked, size: int, rows: Sequence[int] | None = None) -> list[list[int]]:
    """Part a goal's probes into batches of alike length, so that little is computed for padding.

    Args:
        asked: a prepared goal.
        size: probes in a batch.
        rows: which probes; all when not given.
    """
    if asked.batch is not None:
        lengths = asked.batch.mask.sum(1).tolist()
    else:
        lengths = [(steps, len(text)) for steps, text in zip(asked.lengths, asked.goal.texts, strict=True)]
    order = sorted(range(len(asked)) if rows is None else rows, key=lambda row: lengths[row])
    return [order[start : start + size] for start in range(0, len(order), size)]


def divergence(decisions: Decisions) -> Float[Tensor, " text"]:
    """Kullback-Leibler divergence of the target from the wanted answers, summed over steps, per probe, in nats."""
    wanted = decisions.wanted
    log_wanted = wanted.clamp_min(1e-12).log()
    each = (wanted * (log_wanted - decisions.logits.log_softmax(-1))).sum(-1)
    return (each * decisions.mask).sum(-1)
