"""Measure one cell of first light: every route, baseline and control for one capability, pair and seed."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import torch

from benchmarks import controls
from benchmarks.making import LABELS, RANK, Timed, bare, oracle, probes, source, task, timed
from benchmarks.plan import CAPABILITIES, CONTROL_SEED, FUNCTIONS, PROBES, TEST, Cell
from umaf.adapters import Factors, attach, combine
from umaf.evaluation.evaluate import chosen_examples, evaluate
from umaf.evaluation.forgetting import forgetting
from umaf.generation.distill import FUNCTION_STEPS, LABEL_STEPS, distill
from umaf.generation.generate import shorten
from umaf.generation.goals import Goal
from umaf.generation.solve import solve
from umaf.generation.sources import Source, goals_of
from umaf.generation.train import Schedule, train_lora
from umaf.models import Model
from umaf.readout import label_scores
from umaf.tasks.door import find_data

# Train capabilities that every base has seen in pretraining: what there is to forget.
KNOWN = ("goemotions_ekman7", "boolq_nopassage")


def measure(cell: Cell, cache: Path, run: str) -> dict:
    """Measure a cell, in a run of that name.

    Returns:
        {"scores": {who: accuracy}, "cpu" and "wall": {who: seconds}, ...}; a score of None was not measured.
    """
    return _fused(cell, cache) if cell.kind == "fused" else _single(cell, cache, run)


def goal_from(model: Model, target: Model, capability: str, seed: int) -> Goal:
    """Ask a source for its answers on the capability's probes."""
    known = task(capability)
    given = Source(model, tuple(probes(capability, seed)), known.cue, known.labels)
    return shorten(target, goals_of([given], target, truncate=True)[0])[0]


def score(model: Model, capability: str) -> float:
    """Share of right answers on the first test texts, the same for everyone."""
    return evaluate(model, task(capability), limit=TEST, seed=0).value


def _single(cell: Cell, cache: Path, run: str) -> dict:
    target, name, seed = bare(cell.target), cell.capability, cell.seed
    expert = source(cell.source, name, seed, cache)
    goal, solved = _solved(cell, cache)
    best = oracle(cell.target, name, seed, cache, run)
    steps = FUNCTION_STEPS if goal.is_function else LABEL_STEPS
    made = {
        "solve": solved,
        "distill": timed(distill, target, [goal], rank=RANK, seed=seed),
        "distill_from_scratch": timed(
            train_lora, target, [goal], rank=RANK, schedule=Schedule(steps=steps), seed=seed
        ),
        "oracle": best,
    }
    adapters: dict[str, Factors] = {who: one.value for who, one in made.items()}
    adapters["mean_adapter"] = _mean_adapter(cell, cache, run)
    if seed == CONTROL_SEED:
        adapters["control_index_svd"] = controls.index_matched(expert, bare(cell.source), target, RANK)
        mixed = controls.shuffled(goal, seed)
        adapters["control_shuffled"] = solve(target, [mixed], rank=RANK, seed=seed).factors
        adapters["control_wrong_source"] = _wrong_source(cell, cache)
    scores = {who: score(attach(target, factors), name) for who, factors in adapters.items()}
    scores |= {"bare": score(target, name), "source": score(expert, name), "proxy": _proxy(cell, expert)}
    lost = ("distill", "oracle") if seed == CONTROL_SEED else ()
    return {
        "scores": scores,
        "cpu": {who: one.cpu for who, one in made.items()},
        "wall": {who: one.wall for who, one in made.items()},
        "forgetting": {who: _forgot(target, adapters[who]) for who in lost},
        "one_run": best.run == run,
        "probes": len(goal.texts),
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
    return _solved(dataclasses.replace(cell, capability=wrong), cache)[1].value


@functools.cache
def _solved(cell: Cell, cache: Path) -> tuple[Goal, Timed]:
    """Ask the cell's source, and solve; the same adapter is another cell's wrong source."""
    target = bare(cell.target)
    expert = source(cell.source, cell.capability, cell.seed, cache)
    goal = goal_from(expert, target, cell.capability, cell.seed)
    return goal, timed(solve, target, [goal], rank=RANK, seed=cell.seed)


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
    target = bare(cell.target)
    names = cell.capability.split("+")
    goals = [goal_from(source(cell.source, n, cell.seed, cache), target, n, cell.seed) for n in names]
    together = [dataclasses.replace(goal, weight=0.5) for goal in goals]
    found: dict[str, dict] = {}
    for route, make in (("solve", solve), ("distill", distill)):
        # Two capabilities share the steps, so they get twice as many.
        more = {"steps": 2 * LABEL_STEPS} if route == "distill" else {}
        both = attach(target, make(target, together, rank=RANK, seed=cell.seed, **more).factors)
        for name, goal in zip(names, goals, strict=True):
            alone = attach(target, make(target, [goal], rank=RANK, seed=cell.seed).factors)
            row = found.setdefault(name, {"bare": score(target, name)})
            row |= {f"{route}_alone": score(alone, name), f"{route}_fused": score(both, name)}
    return {"scores": found}


SIZES = {"rank": RANK, "probes": PROBES, "test_texts": TEST, "oracle": dataclasses.asdict(LABELS)}
