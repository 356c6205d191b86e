"""CMA-ES: a normal distribution that also learns which numbers move together. Needs the extra `search`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from umaf import seeds
from umaf.errors import ConfigError
from umaf.search.cem import CrossEntropy, Found, Said, Score, check, scored


@dataclass(frozen=True)
class Cma:
    """How the search goes.

    Attributes:
        population: candidates of an iteration.
        iterations: how often.
        low: least value of a number.
        high: greatest value of a number.
        spread: step size at the beginning; a fifth of the range when None.
        seed: of the draws.
    """

    population: int = 32
    iterations: int = 50
    low: float = 0.0
    high: float = 1.0
    spread: float | None = None
    seed: int = 0


def cma_es(
    score: Score, start: Sequence[float], *, settings: Cma | None = None, said: Said | None = None
) -> Found:
    """Search for the numbers with the best score by CMA-ES.

    CMA-ES looks only at the order of candidates, so their places in the sorted list are what it is told; a tuple's
    later parts break ties as in `cross_entropy`. A single number is searched for together with an idle second one,
    because the covariance of one number is no matrix to adapt.

    Args:
        score: scores candidates ``[candidate, number]``, one tuple each; the greater one is better.
        start: where to begin.
        settings: how the search goes.
        said: called with (iterations done, iterations in all).

    Returns:
        The best candidate ever scored, with the way there.

    Raises:
        ConfigError: the package `cmaes` is not installed, or settings that cannot be.
        NumericalError: a score is NaN.

    Source: Hansen, The CMA Evolution Strategy: A Tutorial, arXiv 1604.00772.
    """
    chosen = settings or Cma()
    begin = np.asarray(start, dtype=np.float64)
    check(CrossEntropy(chosen.population, 1, chosen.iterations, chosen.low, chosen.high), begin)
    try:
        cmaes: Any = import_module("cmaes")
    except ImportError as problem:
        raise ConfigError(
            'CMA-ES was asked for, but the package cmaes is not installed; pip install "umaf[search]".'
        ) from problem
    width = max(2, begin.size)
    optimiser = cmaes.CMA(
        mean=np.concatenate([begin, np.full(width - begin.size, (chosen.low + chosen.high) / 2)]),
        sigma=(chosen.high - chosen.low) / 5 if chosen.spread is None else chosen.spread,
        bounds=np.array([[chosen.low, chosen.high]] * width),
        seed=seeds.derive(chosen.seed, "cma-es") % 2**32,
        population_size=chosen.population,
    )
    best, best_score = begin, None
    history: list[tuple[float, ...]] = []
    for step in range(chosen.iterations):
        asked = [optimiser.ask() for _ in range(chosen.population)]
        candidates = np.stack(asked)[:, : begin.size]
        if best_score is None:
            candidates = np.concatenate([candidates, begin[None]])  # the start itself is scored once
        scores = scored(score, candidates)
        top = max(range(len(scores)), key=lambda which: scores[which])
        if best_score is None or scores[top] > best_score:
            best, best_score = candidates[top].copy(), scores[top]
        history.append(best_score)
        ranks = {one: rank for rank, one in enumerate(sorted(set(scores), reverse=True))}
        optimiser.tell([(one, float(ranks[scores[which]])) for which, one in enumerate(asked)])
        if said is not None:
            said(step + 1, chosen.iterations)
        if optimiser.should_stop():
            break
    return Found(best, best_score or (), tuple(history), chosen.population * len(history) + 1)
