"""The cross-entropy method: draw candidates from a normal distribution, keep the best, fit it to them, again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from umaf import seeds
from umaf.errors import ConfigError, NumericalError

Numbers = NDArray[np.float64]
Score = Callable[[Numbers], Sequence[tuple[float, ...]]]
"""Candidates [candidate, number] to one tuple each; tuples compare left to right and the greater one is better."""
Said = Callable[[int, int], None]


@dataclass(frozen=True)
class CrossEntropy:
    """How the search goes; the defaults are those of Transformer-squared's few-shot adaptation.

    Attributes:
        population: candidates of an iteration.
        elites: how many of them the distribution is fitted to.
        iterations: how often.
        low: least value of a number.
        high: greatest value of a number.
        spread: standard deviation at the beginning; half the range when None.
        keep: share of the old mean and deviation kept at each fit, in [0, 1).
        result: "best" gives the best candidate ever scored, "mean" the mean of the last distribution.
        patience: stop after so many iterations without a better candidate; 0 goes through all of them.
        seed: of the draws.
    """

    population: int = 32
    elites: int = 6
    iterations: int = 50
    low: float = 0.0
    high: float = 1.0
    spread: float | None = None
    keep: float = 0.0
    result: Literal["best", "mean"] = "best"
    patience: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        numbers: the result, ``[number]``.
        score: its score; of the best candidate, where the result is a mean.
        history: the best score so far, after each iteration.
        evaluated: how many candidates were scored.
    """

    numbers: Numbers
    score: tuple[float, ...]
    history: tuple[tuple[float, ...], ...]
    evaluated: int


def cross_entropy(
    score: Score,
    start: Sequence[float],
    *,
    settings: CrossEntropy | None = None,
    known: Sequence[Sequence[float]] = (),
    said: Said | None = None,
) -> Found:
    """Search for the numbers with the best score.

    The first candidate of every iteration is the mean itself, then all others are drawn and clipped to the range.
    Elites are chosen by the whole tuple, so a second part breaks the ties of the first: with ten shots most
    candidates share their accuracy, and the likelihood of the right answers tells them apart.

    "best" against "mean": the best candidate ever scored is the default and is what the authors' code applies. Its
    score is never below the mean's, but it is the luckiest of some thousand draws. On a noisy score with a slow fit
    (`keep` of 0.8) the mean ends a third nearer the goal; with `keep` at 0 the distribution has closed around one
    point after some twenty iterations and the two hardly differ.

    Args:
        score: scores candidates ``[candidate, number]``, one tuple each.
        start: the mean at the beginning.
        settings: how the search goes.
        known: candidates that are scored with those of the first iteration, in place of as many drawn ones; at most
            all but the mean.
        said: called with (iterations done, iterations in all).

    Returns:
        The result.

    Raises:
        ConfigError: settings that cannot be, or no numbers to search for.
        NumericalError: a score is NaN.

    Source: Rubinstein and Kroese, The Cross-Entropy Method, 2004; Transformer-squared (arXiv 2501.06252), appendix A.

    Example:
        >>> nearest = lambda found: [(-float(abs(one - 0.3).sum()),) for one in found]
        >>> cross_entropy(nearest, [0.5, 0.5], settings=CrossEntropy(iterations=20)).numbers.round(2).tolist()
        [0.3, 0.3]
    """
    chosen = settings or CrossEntropy()
    mean = np.asarray(start, dtype=np.float64)
    check(chosen, mean)
    draw = np.random.default_rng(seeds.derive(chosen.seed, "cross-entropy"))
    spread = (chosen.high - chosen.low) / 2 if chosen.spread is None else chosen.spread
    deviation = np.full_like(mean, spread)
    best, best_score = mean, None
    history: list[tuple[float, ...]] = []
    for step in range(chosen.iterations):
        candidates = mean + deviation * draw.standard_normal((chosen.population, len(mean)))
        candidates[0] = mean
        if step == 0 and len(known):
            candidates[1 : 1 + len(known)] = np.asarray(known, dtype=np.float64)[: len(candidates) - 1]
        candidates = candidates.clip(chosen.low, chosen.high)
        scores = scored(score, candidates)
        order = sorted(range(len(scores)), key=lambda which: scores[which], reverse=True)
        if best_score is None or scores[order[0]] > best_score:
            best, best_score = candidates[order[0]].copy(), scores[order[0]]
        history.append(best_score)
        elite = candidates[order[: chosen.elites]]
        mean = chosen.keep * mean + (1 - chosen.keep) * elite.mean(0)
        deviation = chosen.keep * deviation + (1 - chosen.keep) * elite.std(0)
        if said is not None:
            said(step + 1, chosen.iterations)
        if chosen.patience and len(history) > chosen.patience and history[-1 - chosen.patience] == best_score:
            break
    numbers = best if chosen.result == "best" else mean
    return Found(numbers, best_score or (), tuple(history), chosen.population * len(history))


def scored(score: Score, candidates: Numbers) -> list[tuple[float, ...]]:
    """Score candidates, and stop at a score that compares with nothing.

    Raises:
        NumericalError: a score is NaN, or not every candidate got one.
    """
    scores = [tuple(float(part) for part in one) for one in score(candidates)]
    if len(scores) != len(candidates) or any(np.isnan(part) for one in scores for part in one):
        raise NumericalError(
            f"{len(candidates)} candidates were to be scored, but the score gave {len(scores)} tuples, "
            "or NaN among them; give each candidate numbers that compare."
        )
    return scores


def check(settings: CrossEntropy, start: Numbers) -> None:
    """Refuse settings that cannot be.

    Raises:
        ConfigError: saying which.
    """
    wrong = {
        f"a population of {settings.population}": settings.population < 2,
        f"{settings.elites} elites of {settings.population}": not 1 <= settings.elites <= settings.population,
        f"{settings.iterations} iterations": settings.iterations < 1,
        f"the range {settings.low:g} to {settings.high:g}": settings.low >= settings.high,
        f"a share kept of {settings.keep:g}": not 0 <= settings.keep < 1,
        f"{start.size} numbers": start.ndim != 1 or start.size == 0,
    }
    for what, is_wrong in wrong.items():
        if is_wrong:
            raise ConfigError(
                f"A search was asked for with {what}; it needs 2 candidates or more, 1 elite up to all of them, 1 "
                "iteration or more, a range that rises, a share kept in [0, 1), and numbers to search for."
            )
