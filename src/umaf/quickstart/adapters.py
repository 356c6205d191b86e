"""One adapter for all capabilities, by each route, and the oracle that they are measured against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from umaf.activations import ANCHORS
from umaf.adapters import attach, write_lora
from umaf.evaluation.record import plain
from umaf.extraction import Fingerprint
from umaf.generation.generate import generate
from umaf.generation.goals import Goal, answer_goal
from umaf.generation.replies import labels_of
from umaf.generation.sources import Source, goals_of
from umaf.generation.train import Schedule, train_lora
from umaf.models import Model, weights_hash
from umaf.pipeline import FINGERPRINT, transfer
from umaf.quickstart.material import Expert, Say, learned
from umaf.quickstart.plan import Plan
from umaf.quickstart.writing import PLAIN
from umaf.readout import samples

WORDS = 4


@dataclass(frozen=True)
class Adapted:
    """The target with what a route made for it.

    Attributes:
        model: the target with the adapter on.
        factors: module name -> (A [rank, in], B [out, rank]).
        history: rows of the route's progress.
        seconds: wall time of the route.
    """

    model: Model
    factors: dict[str, Any]
    history: tuple[dict[str, Any], ...]
    seconds: float


def make_adapters(sources: Sequence[Source], target: Model, plan: Plan, say: Say) -> dict[str, Adapted]:
    """Make an adapter by `solve`, by `distill` and by `generate`, each of them for all capabilities at once.

    All want the sources' odds among the label words; `distill` also wants the likeliest one written out, so that
    the target says it unasked, and the target's own ordinary writing kept; `generate` gets them as one fingerprint.
    """
    say("read the sources' answers on the probes")
    odds = goals_of(sources, target)
    wanted = {
        "solve": odds,
        "distill": [*odds, *(written(goal) for goal in odds), kept(target, seed=plan.seed)],
    }
    options = {"solve": {"iterations": plan.iterations}, "distill": {"steps": plan.distill_steps}}
    made = {}
    for route in wanted:
        say(f"make the adapter by {route}")
        done = generate(
            target, wanted[route], route=route, rank=plan.rank, seed=plan.seed, options=options[route]
        )
        model = replace(attach(target, done.factors), name=f"{target.name} with {route}")
        made[route] = Adapted(model, done.factors, done.history, done.seconds)
    say("make the adapter by generate")
    whole = transfer(sources, target, route="generate", rank=plan.rank, seed=plan.seed)
    model = replace(attach(target, whole.factors), name=f"{target.name} with generate")
    made["generate"] = Adapted(model, whole.factors, whole.history, whole.seconds)
    return made


def written(goal: Goal) -> Goal:
    """Turn wanted odds into wanted words: the likeliest label of each probe.

    Example:
        >>> from umaf.generation.goals import labelled_goal
        >>> written(labelled_goal(["he went"], "tense", ["past", "future"], ["past"])).answers
        ('past',)
    """
    answers = [goal.labels[place] for place in goal.wanted.argmax(dim=1).tolist()]
    return answer_goal(goal.texts, goal.cue, answers, weight=goal.weight)


def kept(target: Model, *, seed: int = 0) -> Goal:
    """Want of the target what it writes anyway: continuations of plain openings, drawn from itself, without any cue."""
    openings = list(dict.fromkeys(" ".join(text.split()[:WORDS]) for text in ANCHORS[PLAIN:]))
    # What is drawn keeps the whole distribution; the likeliest continuations alone would narrow it.
    drawn = [
        (opening, draft)
        for opening, (draft,) in zip(openings, samples(target, openings, seed=seed), strict=True)
    ]
    own = [(opening, draft) for opening, draft in drawn if draft[:1] == " "]
    return answer_goal([opening for opening, _ in own], None, [draft.lstrip(" ") for _, draft in own])


def make_oracle(experts: Sequence[Expert], target: Model, plan: Plan) -> Model:
    """Train a LoRA on the labels of all capabilities: what one could have with labels, to measure against."""
    goals = [learned(expert.task) for expert in experts if expert.source]
    schedule = Schedule(steps=plan.oracle_steps)
    factors = train_lora(target, goals, rank=plan.rank, schedule=schedule, seed=plan.seed)
    return replace(attach(target, factors), name=f"{target.name} with the oracle")


def write_adapter(
    folder: Path,
    target: Model,
    adapted: Adapted,
    *,
    route: str,
    sources: Sequence[Source],
    fused: Fingerprint,
) -> None:
    """Write the PEFT folder with the fused fingerprint, and where it comes from in its own file."""
    about = {
        "route": route,
        "sources": [
            {
                "model": source.model.name,
                "base": None if source.base is None else source.base.name,
                "weights": weights_hash(source.model),
                "cue": source.cue,
                "labels": labels_of(source),
                "probe_count": len(source.probes),
            }
            for source in sources
        ],
        "target_weights": weights_hash(target),
        "fingerprint": asdict(fused.card),
        "history": adapted.history,
        "seconds": round(adapted.seconds, 3),
    }
    write_lora(
        folder,
        target,
        adapted.factors,
        provenance=plain(about),
        beside=lambda draft: fused.save(draft / FINGERPRINT),
    )
