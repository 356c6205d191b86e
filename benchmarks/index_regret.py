"""What a found model achieves on the task it was searched for, against the best of the collection."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.index_experts import (
    CUE,
    QUERIES,
    TASKS,
    Member,
    accuracy,
    base_of,
    home,
    probes,
    queries,
    task_of,
)
from benchmarks.index_spaces import Measured, tables
from umaf.errors import UmafError
from umaf.extraction import default_pca
from umaf.extraction.describe import describe
from umaf.extraction.inputs import Inputs, read_inputs
from umaf.files import write_json
from umaf.index import Query, logme
from umaf.index.search import task_vector
from umaf.models import open_model

READER = "llama-1m"
SEEDS = 3


def regrets(measured: Measured) -> dict[str, list[float]]:
    """Search the collection by every task it has experts of; points lost against the best, per task.

    answers: labelled texts, no model opened; unlabelled: the same without labels; reader: texts read by a small model;
    expert: a reader trained on the labelled texts; logme: every model run on the texts; names: a search for the task's
    name in the members' names, which knows what nobody but the curator knows; blind: a guess.
    """
    who = list(measured)
    known = [task for task in TASKS if any(member.task == task for member in who)]
    vectors = tables(measured)["answers"].float()
    found: dict[str, list[float]] = {}
    for task in known:
        achieved = functools.partial(_achieved, measured=measured, task=task)
        best = max(float(values["score"]) for member, values in measured.items() if member.task == task)
        for route, order in _orders(task, measured, vectors).items():
            found.setdefault(route, []).append(100 * (best - achieved(who[order[0]])))
        draws = np.random.default_rng(0).integers(len(who), size=SEEDS)
        found.setdefault("blind", []).append(100 * (best - float(np.mean([achieved(who[n]) for n in draws]))))
    return {name: [max(0.0, value) for value in values] for name, values in found.items()}


def additivity(measured: Measured) -> list[float]:
    """Add two experts' changes of one base, and compare the fingerprint with the sum of theirs."""
    who = {member: values for member, values in measured.items() if member.model == READER}
    pairs = list(zip(list(who), list(who)[1:], strict=False))[:6]
    components, found = default_pca().components.double(), []
    for one, other in pairs:
        base, before, _ = base_of(one.model)
        first, second = (open_model(home() / "experts" / _folder(member)).net for member in (one, other))
        model = open_model(f"zoo:{one.model}")
        added, (left, right) = model.net.state_dict(), (first.state_dict(), second.state_dict())
        original = base.net.state_dict()
        for name in added:
            if added[name].is_floating_point():
                added[name].copy_(left[name] + right[name] - original[name])
        own = read_inputs(model, probes(), base=None)
        both = Inputs(
            own.coordinates, own.gram, before.coordinates, before.gram, own.depths, own.normalisation
        )
        whole = components @ describe(both)
        parts = sum(components @ who[member]["description"].double() for member in (one, other))
        found.append(float(torch.nn.functional.cosine_similarity(whole, torch.as_tensor(parts), dim=0)))
    return found


def _orders(task: str, measured: Measured, vectors: Tensor) -> dict[str, Sequence[int]]:
    """Rank the members for a task by every route, best first."""
    who, known = list(measured), task_of(task)
    shown = queries(task)
    texts = tuple(example.text for example in shown)
    labelled = Query(texts, tuple(example.answer for example in shown), known.cue)
    reader = base_of(READER)[0]
    asked = {
        "answers": task_vector(probes(), labelled, cue=CUE),
        "unlabelled": task_vector(probes(), Query(texts), cue=CUE),
        "reader": task_vector(probes(), labelled, reader=reader, cue=CUE),
        "expert": task_vector(probes(), labelled, route="expert", reader=reader, cue=CUE),
    }
    orders: dict[str, Sequence[int]] = {
        name: (vectors @ vector).argsort(descending=True).tolist() for name, vector in asked.items()
    }
    at = TASKS.index(task) * QUERIES
    rated = [
        logme(measured[member]["features"][at : at + QUERIES].float(), [e.answer for e in shown])
        for member in who
    ]
    orders["logme"] = np.argsort([-value for value in rated]).tolist()
    orders["names"] = sorted(range(len(who)), key=lambda n: (who[n].task != task, n))
    return orders


def _achieved(member: Member, *, measured: Measured, task: str) -> float:
    """Score a member on a task; what cannot say the task's labels gets what a guess would."""
    if member.task == task:
        return float(measured[member]["score"])
    path = home() / "elsewhere.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    key = f"{member.name} on {task}"
    if key not in known:
        try:
            known[key] = accuracy(open_model(home() / "experts" / _folder(member)), task)
        except UmafError:
            known[key] = 1 / len(task_of(task).labels)
        write_json(path, known)
    return known[key]


def _folder(member: Member) -> str:
    return f"zoo-{member.model}--{member.task.replace('/', '-')}--{member.seed}"
