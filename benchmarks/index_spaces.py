"""The vectors that models are compared by in the benchmark, and how well each finds a capability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.index_plan import Member, task_of
from benchmarks.index_read import probes
from umaf.extraction import Answers, arranged, bind_labels, default_pca, load_answered, meant, prototypes
from umaf.extraction.answered import even
from umaf.index.answers import knowledge
from umaf.tensors import cka

Measured = Mapping[Member, Mapping[str, Tensor]]
# One capability on several data sets; where kin counts, any of them is right.
KIN = {
    name: "sentiment"
    for name in ("made/sentiment", "mr_polarity", "sentlabel_imdb", "sentlabel_amazon_cells")
}


def spaces(collection: Measured) -> dict[str, Tensor]:
    """Give every way of comparing as a table of similarities `[member, member]`.

    Those of `tables`, and: pca with answers: the mean of two, per base, which was the best before; rsa: correlation of
    the two models' answer correlations; cka: of the shifts of all probes.
    """
    found = tables(collection)
    alike = {name: cosines(vectors) for name, vectors in found.items()}
    alike["pca with answers, per base"] = (alike["pca, per base"] + alike["answers, per base"]) / 2
    rows = list(collection.values())
    correlated = np.stack([_correlations(one["relation"]) for one in rows])
    correlated = correlated - correlated.mean(1, keepdims=True)
    # A model that answers everything alike correlates with nobody.
    alike["rsa"] = cosines(torch.from_numpy(correlated))
    alike["cka"] = _ckas([one["shift"].double().transpose(0, 1).flatten(1) for one in rows])
    return alike


def tables(collection: Measured) -> dict[str, Tensor]:
    """Give the vectors of each member `[member, number]`, of length 1.

    fingerprint: the store's; without cue, words alone (no place), places alone (which words are there left out), and
    arrangement (no word at all): what its parts do; answers: the knowledge vector; pca: the closed-form extractor on
    activations. "per base": the mean of all experts of a base is taken off.
    """
    components, places = default_pca().components.double(), load_answered().space.places(probes())
    count, rows = len(probes()), {}
    for member, one in collection.items():
        known, scores = task_of(member.task), one["told"][:count]
        directions = prototypes(places, even(scores), strength=0.1)
        shares = scores.softmax(-1)
        whole = {
            "fingerprint": meant(places, [Answers(known.cue, known.labels, scores)]),
            "without cue": bind_labels(directions, known.labels),
            "words alone": bind_labels(torch.zeros_like(directions), known.labels),
            "places alone": bind_labels(directions, known.labels) - bind_labels(0 * directions, known.labels),
            "arrangement": arranged(places, shares.sqrt()),
            "answers": knowledge(shares),
            "pca": components @ one["description"].double(),
        }
        for name, vector in whole.items():
            rows.setdefault(name, []).append(vector.double())
    bases = [member.model for member in collection]
    own = {name: unit(torch.stack(found)) for name, found in rows.items()}
    centred = {
        f"{name}, per base": unit(_centred(own[name], bases)) for name in ("fingerprint", "answers", "pca")
    }
    return {**own, **centred}


def unit(rows: Tensor) -> Tensor:
    """Bring rows to length 1."""
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)


def cosines(rows: Tensor) -> Tensor:
    """Compare each row with each."""
    return unit(rows.double()) @ unit(rows.double()).T


def retrieval(
    alike: Tensor, members: Sequence[Member], asked: Sequence[str], *, kin: bool = False
) -> dict[str, list[float]]:
    """For each member of some tasks, look among all other architectures: is the first, one of five, of its task?

    Args:
        alike: similarities `[member, member]`.
        members: all that are looked among.
        asked: tasks whose members are looked for.
        kin: count another data set of the same capability as right.
    """
    first, five = [], []
    name = (lambda task: KIN.get(task, task)) if kin else (lambda task: task)
    for at, member in enumerate(members):
        others = [n for n, other in enumerate(members) if other.architecture != member.architecture]
        right = {n for n in others if name(members[n].task) == name(member.task)}
        if member.task not in asked or not right:
            continue
        best = sorted(others, key=lambda n: -float(alike[at, n]))[:5]
        first.append(float(best[0] in right))
        five.append(float(bool(right & set(best))))
    return {"top1": first, "top5": five}


def chance(members: Sequence[Member], asked: Sequence[str]) -> tuple[float, float]:
    """Give the expected top-1 and top-5 of a blind guess."""
    one, five = [], []
    for member in members:
        if member.task not in asked:
            continue
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


def _ckas(rows: Sequence[Tensor]) -> Tensor:
    """Compare each with each, `[probe, anything]`; turned first, so that none has more columns than probes."""
    turned = []
    for one in rows:
        centred = one.double() - one.double().mean(0)
        values, vectors = torch.linalg.eigh(centred @ centred.T)
        turned.append(vectors * values.clamp_min(0).sqrt())
    rows = turned
    table = torch.eye(len(rows), dtype=torch.float64)
    for i in range(len(rows)):
        for j in range(i):
            table[i, j] = table[j, i] = float(cka(rows[i], rows[j], unbiased=True))
    return table


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
