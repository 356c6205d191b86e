"""The Adapter Generator in one call: goals in, an adapter's factors out, by a named route."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from umaf.adapters import lora_modules, weight_of
from umaf.errors import ConfigError, NumericalError
from umaf.generation.decisions import ask, decide
from umaf.generation.goals import Goal, part
from umaf.generation.solve import Solved
from umaf.generation.train import nothing
from umaf.models import Model
from umaf.readout import encode, prompt_of
from umaf.readout.generate import answer_ids
from umaf.registry import Registry

Route = Callable[..., Solved]

ROUTES = Registry(
    "route",
    "umaf.routes",
    {
        "solve": "umaf.generation.solve:solve",
        "distill": "umaf.generation.distill:distill",
        "generate": "umaf.generation.forward:forward",
    },
)
_OWN = ("model", "goals", "rank", "seed", "truncate")


@dataclass(frozen=True)
class Generated:
    """An adapter with what its making saw.

    Attributes:
        factors: module name -> (A [rank, in], B [out, rank]), with dW = B A.
        route: how it was made.
        history: rows of the route's progress; a row with "note" says something in words.
        seconds: wall time.
    """

    factors: dict[str, tuple[Tensor, Tensor]]
    route: str
    history: tuple[dict[str, Any], ...]
    seconds: float


def generate(
    target: Model,
    goals: Sequence[Goal],
    *,
    route: str = "solve",
    rank: int = 8,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    truncate: bool = False,
) -> Generated:
    """Make an adapter that lets a target answer as its goals want.

    Args:
        target: the model that receives; it is left as it was.
        goals: from `umaf.generation.sources.goals_of`; none gives the adapter that changes nothing.
        route: a registered name: "solve", "distill" or "generate".
        rank: rank of every module's update, at least 1.
        seed: of everything random.
        options: further options of the route, such as ``{"steps": 300}`` for "distill".
        truncate: cut probes that do not fit the target's window; the history says how many.

    Returns:
        The factors and how they came about.

    Raises:
        RegistryError: no such route.
        ConfigError: a rank or an option that the route or the target cannot have.
        ProbeError: too few probes, or one that does not fit.
        AdapterError: the target cannot receive an adapter.
        NumericalError: NaN, infinity or a singular system on the way.

    Example:
        >>> ROUTES.names()
        ['distill', 'generate', 'solve']
        >>> generate(target, goals, route="distill", options={"steps": 300}).seconds  # doctest: +SKIP
        41.2
    """
    began = time.perf_counter()
    make = check_route(target, route=route, rank=rank, options=options)
    notes: list[dict[str, Any]] = []
    if not goals:
        note = {"note": "no source has anything to move, so the adapter changes nothing"}
        return Generated(nothing(target, rank, seed), route, (note,), time.perf_counter() - began)
    if truncate:
        shortened = [shorten(target, goal) for goal in goals]
        goals = [goal for goal, _ in shortened]
        notes = [
            {"note": f"{cut} of {len(goal.texts)} probes were cut to the window of {target.name}"}
            for goal, cut in shortened
            if cut
        ]
    if target.family.experts and not (options or {}).get("experts"):
        notes.append(
            {"note": f"the stacked experts of {target.name} stay as they are; its attention is adapted"}
        )
    for goal in goals:
        _check_answers(target, goal, truncate)
    try:
        solved = make(target, goals, rank=rank, seed=seed, truncate=truncate, **(options or {}))
    except torch.linalg.LinAlgError as problem:  # type: ignore[attr-defined]
        raise NumericalError(
            f"The route {route!r} came upon a system without a solution for {target.name} "
            f"({' '.join(str(problem).split()).rstrip('.')}); check the probes, or open the target in float32."
        ) from problem
    for name, pair in solved.factors.items():
        if not all(bool(torch.isfinite(factor).all()) for factor in pair):
            raise NumericalError(
                f'The route {route!r} gave NaN or infinity for "{name}" of {target.name}; open the target in float32, '
                "and check its weights and the probes."
            )
    return Generated(dict(solved.factors), route, (*notes, *solved.history), time.perf_counter() - began)


def check_route(target: Model, *, route: str, rank: int, options: Mapping[str, Any] | None = None) -> Route:
    """Find a route, and stop where the target or the route cannot have what was asked, before any model runs.

    Raises:
        RegistryError, ConfigError, AdapterError: see `generate`.
    """
    make = cast(Route, ROUTES.get(route))
    known = [name for name in inspect.signature(make).parameters if name not in _OWN]
    for name in options or {}:
        if name not in known:
            raise ConfigError(
                f"The route {route!r} was given the option {name!r}, which it does not have; it has "
                f"{', '.join(known) or 'none'}."
            )
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ConfigError(f"The rank must be a whole number of at least 1, got {rank!r}; 8 is a good start.")
    name, sides = min(
        ((name, min(weight_of(target, name).shape[-2:])) for name in lora_modules(target)),
        key=lambda item: item[1],
    )
    if rank > sides:
        raise ConfigError(
            f'A rank of {rank} was asked for, but "{name}" of {target.name} has only {sides} dimensions; ask for at '
            f"most {sides}."
        )
    return make


def _check_answers(target: Model, goal: Goal, truncate: bool) -> None:
    """Stop at a target whose numbers overflow, on a few probes, before a route meets them in a matrix."""
    few = part(goal, range(min(8, len(goal.texts))))
    with torch.inference_mode():
        logits = decide(ask(target, few, truncate=truncate), range(len(few.texts))).logits
    if not torch.isfinite(logits).all():
        raise NumericalError(
            f'"{target.name}" answers the probes with NaN or infinity; open it in float32, and check its weights.'
        )


def shorten(model: Model, goal: Goal) -> tuple[Goal, int]:
    """Cut the texts of a goal until they fit a model's window with cue and answer.

    Returns:
        The goal, and how many of its texts were cut.

    Raises:
        ProbeError: the cue and the answer alone do not fit.
    """
    limit = model.window
    if limit is None:
        return goal, 0
    if goal.is_function and model.head == "lm":
        limit -= max(len(answer_ids(model, answer, ended=goal.cue is not None)) for answer in goal.answers)
    if not encode(model, goal.texts, goal.cue, max_length=limit, truncate=True).cut:
        return goal, 0
    texts = tuple(_fit(model, text, goal.cue, limit) for text in goal.texts)
    return replace(goal, texts=texts), sum(new != old for new, old in zip(texts, goal.texts, strict=True))


def _fit(model: Model, text: str, cue: str | None, limit: int) -> str:
    # A text cut between two tokens may read as more tokens than before, hence the loop.
    while text and encode(model, [text], cue, max_length=limit, truncate=True).cut:
        spans = model.tokenizer(prompt_of(model, text, cue), return_offsets_mapping=True, verbose=False)
        surplus = max(1, len(spans["input_ids"]) - limit)
        starts = [start for start, end in spans["offset_mapping"] if start < end <= len(text)]
        text = text[: starts[-surplus]] if surplus <= len(starts) else ""
    return text
