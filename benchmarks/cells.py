"""Measure one cell of first light: every route, baseline and control for one capability, pair and seed."""

from __future__ import annotations

import dataclasses
import functools
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import controls
from benchmarks.making import LABELS, RANK, Timed, bare, oracle, probes, schedule, source, task, timed
from benchmarks.plan import CAPABILITIES, FUNCTIONS, PROBES, TEST, Cell
from umaf.adapters import Factors, attach, combine
from umaf.evaluation.evaluate import chosen_examples, evaluate
from umaf.evaluation.forgetting import forgetting
from umaf.generation.distill import distill
from umaf.generation.generate import shorten
from umaf.generation.goals import Goal
from umaf.generation.solve import solve
from umaf.generation.sources import Source, goals_of
from umaf.generation.train import train_lora
from umaf.models import Model
from umaf.readout import label_scores
from umaf.tasks.door import find_data

# Train capabilities that every base has seen in pretraining: what there is to forget.
KNOWN = ("goemotions_ekman7", "boolq_nopassage")
ROUTES = {"solve": solve, "distill": distill}


@dataclass(frozen=True)
class Answered:
    """What a source answered, and the CPU seconds that this took."""

    goal: Goal
    cpu: float


def measure(cell: Cell, cache: Path, run: str) -> dict:
    """Measure a cell, in a run of that name.

    Returns:
        {"scores": {who: accuracy}, "cpu" and "wall": {who: seconds}, ...}; a score of None was not measured.
    """
    return _fused(cell, cache) if cell.kind == "fused" else _single(cell, cache, run)


@functools.cache
def goal_of(cell: Cell, cache: Path) -> Answered:
    """Ask a cell's source for its answers on the capability's probes."""
    target, known = bare(cell.target), task(cell.capability)
    expert = source(cell.source, cell.capability, cell.seed, cache)
    given = Source(expert, tuple(probes(cell.capability, cell.seed)), known.cue, known.labels)
    began = time.process_time()
    goal = shorten(target, goals_of([given], target, truncate=True)[0])[0]
    return Answered(goal, time.process_time() - began)


@functools.cache
def made(cell: Cell, route: str, cache: Path) -> Timed:
    """Make a cell's adapter by a route; other cells ask for the same one."""
    goal = goal_of(cell, cache).goal
    return timed(ROUTES[route], bare(cell.target), [goal], rank=RANK, seed=cell.seed, **options(cell, route))


def options(cell: Cell, route: str) -> dict:
    """Give `distill` less than half the gradient steps of fine-tuning on labels; asking the source takes time too."""
    return {"steps": schedule(cell.target).steps * 7 // 15} if route == "distill" else {}


def score(model: Model, capability: str) -> float:
    """Share of right answers on the first test texts, the same for everyone."""
    return evaluate(model, task(capability), limit=TEST, seed=0).value


@functools.cache
def bare_score(name: str, capability: str) -> float:
    """Score a model of the plan as it is."""
    return score(bare(name), capability)


def _single(cell: Cell, cache: Path, run: str) -> dict:
    cell, extras = dataclasses.replace(cell, extras=False), cell.extras
    target, name, seed = bare(cell.target), cell.capability, cell.seed
    expert = source(cell.source, name, seed, cache)
    answered = goal_of(cell, cache)
    best = oracle(cell.target, name, seed, cache, run)
    costs = {"solve": made(cell, "solve", cache), "distill": made(cell, "distill", cache), "oracle": best}
    adapters: dict[str, Factors] = {who: one.value for who, one in costs.items()}
    if extras:
        # What all the steps of fine-tuning on labels would bring.
        longer = timed(
            train_lora, target, [answered.goal], rank=RANK, schedule=schedule(cell.target), seed=seed
        )
        costs["distill_long"], adapters["distill_long"] = longer, longer.value
        adapters["mean_adapter"] = _mean_adapter(cell, cache, run)
        adapters["control_index_svd"] = controls.index_matched(expert, bare(cell.source), target, RANK)
        mixed = controls.shuffled(answered.goal, seed)
        adapters["control_shuffled"] = solve(target, [mixed], rank=RANK, seed=seed).factors
        adapters["control_wrong_source"] = _wrong_source(cell, cache)
    scores: dict[str, float | None] = {
        who: score(attach(target, factors), name) for who, factors in adapters.items()
    }
    scores |= {"bare": bare_score(cell.target, name), "source": score(expert, name)}
    scores["proxy"] = _proxy(cell, expert) if extras else None
    lost = ("distill", "oracle") if extras else ()
    return {
        "scores": scores,
        "cpu": {"answers": answered.cpu, **{who: one.cpu for who, one in costs.items()}},
        "wall": {who: one.wall for who, one in costs.items()},
        "forgetting": {who: _forgot(target, adapters[who]) for who in lost},
        "one_run": best.run == run,
        "probes": len(answered.goal.texts),
    }


def _mean_adapter(cell: Cell, cache: Path, run: str) -> Factors:
    """Average the oracle LoRAs of the other capabilities of its kind."""
    family = FUNCTIONS if cell.kind == "function" else CAPABILITIES
    others = [
        oracle(cell.target, name, cell.seed, cache, run).value for name in family if name != cell.capability
    ]
    return combine(others, [1 / len(others)] * len(others))


def _wrong_source(cell: Cell, cache: Path) -> Factors:
    """Solve for what another capability's expert says, on the probes that show that other capability."""
    family = FUNCTIONS if cell.kind == "function" else CAPABILITIES
    wrong = family[(family.index(cell.capability) + 1) % len(family)]
    return made(dataclasses.replace(cell, capability=wrong), "solve", cache).value


def _proxy(cell: Cell, expert: Model) -> float | None:
    """Proxy tuning (2401.08565) over the label words: target + source - source's base, at decoding time."""
    known = task(cell.capability)
    if not known.labels:
        return None  # the vocabularies differ, so logits of free answers cannot be added
    examples = chosen_examples(known, split="test", limit=TEST, seed=0)
    texts = [example.text for example in examples]

    def scores(model: Model) -> torch.Tensor:
        return label_scores(model, texts, known.labels, known.cue, truncate=True)

    mixed = scores(bare(cell.target)) + scores(expert) - scores(bare(cell.source))
    chosen = [known.labels[i] for i in mixed.argmax(-1).tolist()]
    return sum(a == e.answer for a, e in zip(chosen, examples, strict=True)) / len(examples)


def _forgot(target: Model, factors: Factors) -> dict:
    data = find_data()
    plain = (data / "lm/wikitext2_small/test.txt").read_text(encoding="utf-8") if data else ""
    texts = [line.strip()[:300] for line in plain.splitlines() if len(line) > 200][:40]
    lost = forgetting(target, attach(target, factors), [task(name) for name in KNOWN], texts=texts, limit=60)
    return {"mean_drop": lost.mean_drop.value, "bits_change": lost.bits_change}


def _fused(cell: Cell, cache: Path) -> dict:
    """Two capabilities in one adapter against each alone, by the same route."""
    target, names = bare(cell.target), cell.capability.split("+")
    alone = [dataclasses.replace(cell, kind="classification", capability=name) for name in names]
    together = [dataclasses.replace(goal_of(one, cache).goal, weight=0.5) for one in alone]
    found: dict[str, dict] = {name: {"bare": bare_score(cell.target, name)} for name in names}
    for route, make in ROUTES.items():
        # Two capabilities share the steps, so they get twice as many.
        more = {name: 2 * value for name, value in options(cell, route).items()}
        both = attach(target, make(target, together, rank=RANK, seed=cell.seed, **more).factors)
        for one in alone:
            apart = attach(target, made(one, route, cache).value)
            found[one.capability][f"{route}_alone"] = score(apart, one.capability)
            found[one.capability][f"{route}_fused"] = score(both, one.capability)
    return {"scores": found}


SIZES = {"rank": RANK, "probes": PROBES, "test_texts": TEST, "oracle": dataclasses.asdict(LABELS)}
