"""Measure one cell of the transfer benchmark: generated adapters beside baselines, controls and the oracle."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.making import RANK, bare, oracle, schedule, source, task, timed
from benchmarks.making import probes as all_probes
from benchmarks.plan import Cell
from benchmarks.transfer_plan import CAPABILITIES, FUSED_RANK, PROBES, REFINE, TEST
from benchmarks.transfer_rivals import closed_form, multitask, nearest, said_by_words
from umaf import seeds
from umaf.adapters import Factors, attach, combine
from umaf.evaluation.evaluate import evaluate
from umaf.extraction import Answers, Fingerprint, bind, extract, load_bound, prototypes
from umaf.fusion import fuse
from umaf.generation.distill import distill
from umaf.generation.forward import forward
from umaf.generation.generate import shorten
from umaf.generation.generator import Generator, load_generator
from umaf.generation.goals import Goal
from umaf.generation.solve import solve
from umaf.generation.sources import Source, goals_of
from umaf.models import Model


@dataclasses.dataclass(frozen=True)
class Told:
    """What a source shows of a capability: its answers as a goal, its fingerprint, and CPU seconds for both."""

    goal: Goal
    fingerprint: Fingerprint
    cpu: float


def measure(cell: Cell, cache: Path, run: str) -> dict:
    """Measure a cell: {"scores": {who: accuracy}, "cpu": {who: seconds}, ...}."""
    return _fused(cell, cache) if cell.kind == "fused" else _single(cell, cache, run)


@functools.cache
def generator(target: str, folder: Path) -> Generator:
    """Open a target's trained generator once."""
    return load_generator(folder / target)


@functools.cache
def told(model: str, target: str, capability: str, seed: int, cache: Path, count: int = PROBES) -> Told:
    """Let an expert answer so many probes, and fingerprint what it answers."""
    known = task(capability)
    expert = source(model, capability, seed, cache)
    given = Source(expert, tuple(all_probes(capability, seed)[:count]), known.cue, known.labels)
    began = time.process_time()
    goal = shorten(bare(target), goals_of([given], bare(target), truncate=True)[0])[0]
    found = fingerprint_of(expert, goal, goal.wanted)
    return Told(goal, found, time.process_time() - began)


def fingerprint_of(model: Model, goal: Goal, scores: Tensor) -> Fingerprint:
    """Fingerprint a capability from answers to the probes."""
    answers = Answers(goal.cue or "", goal.labels, scores)
    return extract(model, goal.texts, extractor="bound", answers=answers, truncate=True)


def score(model: Model, capability: str) -> float:
    """Share of right answers on the first test texts, the same for everyone."""
    return evaluate(model, task(capability), limit=TEST, seed=0).value


@functools.cache
def bare_score(name: str, capability: str) -> float:
    """Score a model of the plan as it is."""
    return score(bare(name), capability)


def _single(cell: Cell, cache: Path, run: str) -> dict:
    target, name, seed = bare(cell.target), cell.capability, cell.seed
    shown = told(cell.source, cell.target, name, seed, cache)
    own = generator(cell.target, cache / "generators")
    best = oracle(cell.target, name, seed, cache, run)

    def made(found: Fingerprint, *, by: Generator = own, refine: int = 0):
        return timed(forward, target, [shown.goal], rank=RANK, generator=by, fingerprint=found, refine=refine)

    costs = {
        "generate": made(shown.fingerprint),
        "generate_refined50": made(shown.fingerprint, refine=REFINE),
        "closed_form": made(shown.fingerprint, by=closed_form(own)),
        "oracle": best,
    }
    if cell.extras:
        steps = schedule(cell.target).steps * 7 // 15
        costs["solve"] = timed(solve, target, [shown.goal], rank=RANK, seed=seed)
        costs["distill"] = timed(distill, target, [shown.goal], rank=RANK, steps=steps, seed=seed)
    adapters: dict[str, Factors] = {who: one.value for who, one in costs.items()}
    adapters["multitask"] = multitask(cell.target, cache)
    adapters["nearest"] = nearest(cell.target, shown.fingerprint, name, own, cache)
    adapters["text"] = made(_with(shown, said_by_words(shown.goal, cache))).value
    if cell.seed == 0:
        adapters["mean"] = _mean(cell, cache, run)
    adapters |= {who: made(found).value for who, found in _controls(cell, shown, cache).items()}
    scores = {who: score(attach(target, factors), name) for who, factors in adapters.items()}
    scores |= {"bare": bare_score(cell.target, name)}
    scores |= {"source": score(source(cell.source, name, seed, cache), name)}
    return {
        "scores": scores,
        "cpu": {"told": shown.cpu, **{who: one.cpu for who, one in costs.items()}},
        "one_run": best.run == run,
        "generator": own.version,
        "probes": len(shown.goal.texts),
    }


def _controls(cell: Cell, shown: Told, cache: Path) -> dict[str, Fingerprint]:
    """Fingerprints that carry nothing of the capability."""
    draw = np.random.default_rng(seeds.derive(cell.seed, "transfer", "controls", cell.name))
    goal, places = shown.goal, load_bound().space.places(shown.goal.texts)
    order = torch.from_numpy(draw.permutation(len(goal.texts)))
    other = CAPABILITIES[(CAPABILITIES.index(cell.capability) + 1) % len(CAPABILITIES)]
    wrong = told(cell.source, cell.target, other, cell.seed, cache).goal
    # Another capability's directions stand under this one's words, in turn where it has fewer.
    found = prototypes(load_bound().space.places(wrong.texts), wrong.wanted)
    turned = found[torch.arange(len(goal.labels)) % len(found)]
    noise = torch.from_numpy(draw.standard_normal(512))
    return {
        "control_shuffled_probes": _with(shown, prototypes(places, goal.wanted[order])),
        "control_wrong_source": _with(shown, turned),
        "control_random_fingerprint": shown.fingerprint.with_vector(noise / noise.norm()),
    }


def _with(shown: Told, directions: Tensor) -> Fingerprint:
    """Bind other directions under the words of a capability."""
    words = Answers(shown.goal.cue or "", shown.goal.labels, shown.goal.wanted).words
    vector = bind(dict(zip(words, directions, strict=True)))
    return shown.fingerprint.with_vector(vector / vector.norm().clamp_min(1e-12))


def _mean(cell: Cell, cache: Path, run: str) -> Factors:
    """Average the oracle LoRAs of the other capabilities."""
    others = [name for name in CAPABILITIES if name != cell.capability]
    found = [oracle(cell.target, name, cell.seed, cache, run).value for name in others]
    return combine(found, [1 / len(found)] * len(found))


def _fused(cell: Cell, cache: Path) -> dict:
    """Several capabilities in one adapter, from one fused fingerprint, against each alone."""
    target, names = bare(cell.target), cell.capability.split("+")
    own = generator(cell.target, cache / "generators")
    alone = [told(cell.source, cell.target, name, cell.seed, cache) for name in names]

    def adapted(parts: Sequence[Told]) -> Model:
        whole = fuse([one.fingerprint for one in parts], [1 / len(parts)] * len(parts))
        goals = [dataclasses.replace(one.goal, weight=1.0) for one in parts]
        made = forward(target, goals, rank=FUSED_RANK, generator=own, fingerprint=whole)
        return attach(target, made.factors)

    both = adapted(alone)
    found = {}
    for name, one in zip(names, alone, strict=True):
        found[name] = {
            "bare": bare_score(cell.target, name),
            "alone": score(adapted([one]), name),
            "fused": score(both, name),
        }
    return {"scores": found, "count": len(names)}
