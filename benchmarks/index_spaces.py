"""The vectors that models are compared by in the benchmark, and how well each finds a capability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.index_experts import Member
from umaf.extraction import default_pca
from umaf.index.answers import sketch
from umaf.tensors import cka

Measured = Mapping[Member, Mapping[str, Tensor]]


def spaces(collection: Measured) -> dict[str, Tensor]:
    """Give every way of comparing as a table of similarities `[member, member]`.

    fingerprint: the store's; answers: the knowledge vector; both: their mean; "per base": the mean of all experts of a
    base is taken off first; rsa: correlation of the two models' answer correlations; cka: of the shifts of all probes.
    """
    found = {name: vectors for name, vectors in tables(collection).items()}
    alike = {name: cosines(vectors) for name, vectors in found.items()}
    alike["both"] = (alike["fingerprint"] + alike["answers"]) / 2
    alike["both, per base"] = (alike["fingerprint, per base"] + alike["answers, per base"]) / 2
    rows = list(collection.values())
    alike["rsa"] = torch.tensor(np.corrcoef(np.stack([_correlations(one["relation"]) for one in rows])))
    shifts = [one["shift"].float().transpose(0, 1).flatten(1) for one in rows]
    table = torch.eye(len(rows), dtype=torch.float64)
    for i in range(len(rows)):
        for j in range(i):
            table[i, j] = table[j, i] = float(cka(shifts[i], shifts[j], unbiased=True))
    alike["cka"] = table
    draw = torch.Generator().manual_seed(0)
    alike["chance"] = cosines(torch.randn(len(rows), 512, generator=draw))
    return alike


def tables(collection: Measured) -> dict[str, Tensor]:
    """Give the vectors of each member `[member, number]`, of length 1."""
    components = default_pca().components.double()
    prints = torch.stack([components @ one["description"].double() for one in collection.values()])
    answered = torch.stack([sketch(one["relation"]).double() for one in collection.values()])
    bases = [member.model for member in collection]
    own = {"fingerprint": unit(prints), "answers": unit(answered)}
    return {**own, **{f"{name}, per base": unit(_centred(rows, bases)) for name, rows in own.items()}}


def unit(rows: Tensor) -> Tensor:
    """Bring rows to length 1."""
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)


def cosines(rows: Tensor) -> Tensor:
    """Compare each row with each."""
    return unit(rows.double()) @ unit(rows.double()).T


def retrieval(alike: Tensor, members: Sequence[Member]) -> dict[str, list[float]]:
    """For each member, look among those of all other architectures: is the first, one of five, of its task?"""
    first, five = [], []
    for at, member in enumerate(members):
        others = [n for n, other in enumerate(members) if other.architecture != member.architecture]
        if not any(members[n].task == member.task for n in others):
            continue
        best = sorted(others, key=lambda n: -float(alike[at, n]))[:5]
        hits = [members[n].task == member.task for n in best]
        first.append(float(hits[0]))
        five.append(float(any(hits)))
    return {"top1": first, "top5": five}


def chance(members: Sequence[Member]) -> tuple[float, float]:
    """Give the expected top-1 and top-5 of a blind guess."""
    one, five = [], []
    for member in members:
        others = [other for other in members if other.architecture != member.architecture]
        right = sum(other.task == member.task for other in others)
        if right:
            one.append(right / len(others))
            missed = [1 - right / (len(others) - n) for n in range(min(5, len(others)))]
            five.append(1 - float(np.prod(np.clip(missed, 0, 1))))
    return float(np.mean(one)), float(np.mean(five))


def architecture_probe(vectors: Tensor, members: Sequence[Member]) -> tuple[float, float]:
    """Guess the architecture from vectors of other tasks' experts: accuracy, and that of the most frequent one."""
    from sklearn.linear_model import LogisticRegression

    names = np.array([member.architecture for member in members])
    tasks = np.array([member.task for member in members])
    right, usual = [], []
    for task in sorted(set(tasks)):
        train, test = tasks != task, tasks == task
        if len(set(names[train])) < 2:
            continue
        probe = LogisticRegression(max_iter=2000, C=10.0).fit(vectors.numpy()[train], names[train])
        right += (probe.predict(vectors.numpy()[test]) == names[test]).tolist()
        values, counts = np.unique(names[train], return_counts=True)
        usual += (values[counts.argmax()] == names[test]).tolist()
    return (float(np.mean(right)), float(np.mean(usual))) if right else (float("nan"), float("nan"))


def _centred(rows: Tensor, groups: Sequence[str]) -> Tensor:
    found = rows.clone()
    for group in set(groups):
        own = torch.tensor([one == group for one in groups])
        if int(own.sum()) > 1:
            found[own] = rows[own] - rows[own].mean(0)
    return found


def _correlations(relation: Tensor) -> np.ndarray:
    table = relation.double()
    scale = table.diagonal().clamp_min(1e-12).sqrt()
    across, down = torch.triu_indices(*table.shape, offset=1)
    return (table / scale[:, None] / scale[None, :])[across, down].numpy()
