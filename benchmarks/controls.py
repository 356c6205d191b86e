"""Adapters that should carry nothing: what a transfer has to beat to mean anything."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from umaf import seeds
from umaf.adapters import lora_modules, weight_of
from umaf.generation.goals import Goal
from umaf.models import Model


def shuffled(goal: Goal, seed: int) -> Goal:
    """Give every probe the source's answer to another probe."""
    order = np.random.default_rng(seeds.derive(seed, "first-light", "shuffled")).permutation(len(goal.texts))
    answers = tuple(goal.answers[i] for i in order) if goal.answers else ()
    return dataclasses.replace(goal, wanted=goal.wanted[torch.from_numpy(order)], answers=answers)


def index_matched(expert: Model, base: Model, target: Model, rank: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Move the expert's change by the index of singular vectors (Cross-LoRA, 2508.05232), which aligns nothing.

    dW_t = U_t (U_s^T dW_s V_s) V_t^T with the leading `rank` vectors; modules are paired by relative position.
    """
    # A classifier's names carry a prefix that the bare body's lack; their order is the same.
    own = list(zip(lora_modules(expert), lora_modules(base), strict=True))
    factors = {}
    names = lora_modules(target)
    for place, name in enumerate(names):
        tuned, plain = own[place * len(own) // len(names)]
        before = weight_of(base, plain).detach().double()
        change = weight_of(expert, tuned).detach().double() - before
        u_s, _, v_s = torch.linalg.svd(before, full_matrices=False)
        u_t, _, v_t = torch.linalg.svd(weight_of(target, name).detach().double(), full_matrices=False)
        core = u_s[:, :rank].T @ change @ v_s[:rank].T
        factors[name] = (v_t[:rank].float().contiguous(), (u_t[:, :rank] @ core).float().contiguous())
    return factors
