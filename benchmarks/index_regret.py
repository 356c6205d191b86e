"""What a found model achieves on the task it was searched for, against the best of the collection."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.index_experts import shelf
from benchmarks.index_plan import HELDOUT, QUERIES, Member, queries, task_of
from benchmarks.index_read import accuracy, home, probes
from benchmarks.index_said import said
from benchmarks.index_spaces import Measured, cosines, tables, unit
from umaf.errors import UmafError
from umaf.extraction import Answers, default_pca, load_answered, meant
from umaf.extraction.describe import describe
from umaf.extraction.inputs import Inputs, read_inputs
from umaf.files import write_json
from umaf.index import Query, logme, task_fingerprint, task_vector
from umaf.index.task import NEAR
from umaf.index.told import Ask
from umaf.index.trial import achieved, group_of
from umaf.index.unlabelled import Heard, beside, heard, heard_in_turn
from umaf.models import Model, open_model
from umaf.readout import label_scores

DRAWS, TRIED, WIDELY = 8, 5, 40


def regrets(measured: Measured) -> dict[str, dict[str, float]]:
    """Search the collection by every held-out task it has experts of; points lost against the best, per task.

    words: labelled texts, no model opened, the default; tried: its first five models run on the same texts; tried, 10:
    its first ten; answers: the knowledge vector of the labelled texts; unlabelled: the same without labels; unlabelled,
    tried: five of its models run in turn, and 40, and all; labels: how many label words a model's card shares with the
    query, which knows no place; logme: every model run on the texts; names: a search for the task's name in the models'
    names, which knows what nobody but the curator knows; blind: a guess.
    """
    who = list(measured)
    vectors, found = tables(measured), {}
    for task in HELDOUT:
        own = [float(values["score"]) for member, values in measured.items() if member.task == task]
        if not own:
            continue
        score = functools.partial(_score, measured=measured, task=task)
        orders, best = _orders(task, measured, vectors), max(own)
        worth = _tried(orders["words"][: 2 * TRIED], who, _query(task, True))
        for name, many in {"tried": TRIED, "tried, 10": 2 * TRIED}.items():
            orders[name] = sorted(orders["words"][:many], key=lambda n: worth[n], reverse=True)
        for name, many in {"tried": TRIED, "tried, 40": WIDELY, "tried, all": len(who)}.items():
            orders[f"unlabelled, {name}"] = _heard(task, orders["unlabelled"], measured, many=many)
        for route, order in orders.items():
            found.setdefault(route, {})[task] = max(0.0, 100 * (best - score(who[order[0]])))
        draws = np.random.default_rng(0).integers(len(who), size=DRAWS)
        blind = float(np.mean([score(who[n]) for n in draws]))
        found.setdefault("blind", {})[task] = max(0.0, 100 * (best - blind))
    return found


def additivity(measured: Measured, *, pairs: int = 6) -> dict[str, list[float]]:
    """Add what two experts of one base learned; cosine of the sum's fingerprint with the sum of theirs."""
    made: dict[str, list[float]] = {"fingerprint": [], "pca": []}
    components = default_pca().components.double()
    for one, other in _pairs(measured)[:pairs]:
        base, model, right = (
            open_model(place) for place in (f"zoo:{one.model}", shelf() / one.folder, shelf() / other.folder)
        )
        original, left, added = base.net.state_dict(), model.net.state_dict(), right.net.state_dict()
        with torch.no_grad():
            for name, value in left.items():
                if value.is_floating_point():
                    value.copy_(value + added[name] - original[name])
        parts = unit(torch.stack([_meant(measured[member]["told"], member) for member in (one, other)]))
        texts = list(probes())
        answers = [
            Answers(
                known.cue, known.labels, label_scores(model, texts, known.labels, known.cue, truncate=True)
            )
            for known in (task_of(one.task), task_of(other.task))
        ]
        whole = meant(load_answered().space.places(texts), answers)
        made["fingerprint"].append(float(cosines(torch.stack([whole, parts.sum(0)]))[0, 1]))
        own, before = (read_inputs(net, texts, base=None) for net in (model, base))
        both = Inputs(
            own.coordinates, own.gram, before.coordinates, before.gram, own.depths, own.normalisation
        )
        described = components @ sum(measured[member]["description"].double() for member in (one, other))
        made["pca"].append(float(cosines(torch.stack([components @ describe(both), described]))[0, 1]))
    return made


def _pairs(measured: Measured) -> list[tuple[Member, Member]]:
    """Pair experts of one decoder on two held-out tasks, as even over the bases as it goes."""
    found = []
    for turn in range(len(HELDOUT)):
        for model in ("llama-1m", "gpt2-1m", "mixtral-1m"):
            own = [m for m in measured if m.model == model and m.task in HELDOUT and m.seed < 2]
            names = list(dict.fromkeys(m.task for m in own))
            if 2 * turn + 1 < len(names):
                first, second = names[2 * turn : 2 * turn + 2]
                found.append(tuple(next(m for m in own if m.task == name) for name in (first, second)))
    return found


def _meant(told: Tensor, member: Member) -> Tensor:
    known = task_of(member.task)
    return meant(
        load_answered().space.places(probes()), [Answers(known.cue, known.labels, told[: len(probes())])]
    )


def _query(task: str, labelled: bool) -> Query:
    shown = queries(task)
    labels = tuple(example.answer for example in shown) if labelled else ()
    return Query(tuple(example.text for example in shown), labels)


def _orders(task: str, measured: Measured, vectors: Mapping[str, Tensor]) -> dict[str, Sequence[int]]:
    """Rank the members for a task by every route, best first."""
    who, query = list(measured), _query(task, True)
    answers, unlabelled = (
        (vectors["answers"].float() @ task_vector(probes(), one)).argsort(descending=True).tolist()
        for one in (query, _query(task, False))
    )
    alike = vectors["fingerprint"].float() @ task_fingerprint(query)
    near = [n for n in alike.argsort(descending=True).tolist() if float(alike[n]) >= NEAR]
    at = HELDOUT.index(task) * QUERIES
    rated = [
        logme(values["features"][at : at + QUERIES].float(), list(query.labels))
        for values in measured.values()
    ]
    wanted = {label.casefold() for label in query.classes}
    said = [{label.casefold() for label in task_of(member.task).labels} for member in who]
    shared = [len(wanted & own) / len(wanted | own) for own in said]
    return {
        "words": [*near, *(n for n in answers if n not in set(near))],
        "answers": answers,
        "unlabelled": unlabelled,
        "logme": np.argsort([-value for value in rated], kind="stable").tolist(),
        "labels": sorted(range(len(who)), key=lambda n: (-shared[n], n)),
        "names": sorted(range(len(who)), key=lambda n: (who[n].task != task, n)),
    }


def _tried(order: Sequence[int], who: Sequence[Member], query: Query) -> dict[int, tuple[float, float]]:
    """Run models on the query's texts, as `umaf index search --try` does."""
    worth = {}
    for n in order:
        known = task_of(who[n].task)
        worth[n] = achieved(_opened(who[n]), query, [Ask(known.cue, known.labels)])
    return worth


def _heard(task: str, order: Sequence[int], measured: Measured, *, many: int) -> list[int]:
    """Run some in turn on unlabelled texts, as `umaf index search --try` does; what each says was read before."""
    who, at = list(measured), HELDOUT.index(task) * QUERIES
    where = [probes().index(text) for text in beside(probes())]

    def run(number: int) -> list[Heard]:
        member = who[order[number]]
        scores = torch.cat([said(member)[at : at + QUERIES], measured[member]["told"][where]])
        return [heard(task_of(member.task).labels, scores, QUERIES)]

    groups = [group_of([Ask(known.cue, known.labels)]) for known in (task_of(who[n].task) for n in order)]
    worth = heard_in_turn(groups, run, many=many)
    return [order[number] for number in sorted(worth, key=lambda number: worth[number], reverse=True)]


def _score(member: Member, *, measured: Measured, task: str) -> float:
    """Score a member on a task; what cannot say the task's labels gets what a guess would."""
    if member.task == task:
        return float(measured[member]["score"])
    path = home() / "elsewhere.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    key = f"{member.name} on {task}"
    if key not in known:
        try:
            known[key] = accuracy(_opened(member), task)
        except UmafError:
            known[key] = 1 / len(task_of(task).labels)
        write_json(path, known)
    return known[key]


@functools.lru_cache(maxsize=8)
def _opened(member: Member) -> Model:
    return open_model(shelf() / member.folder)
