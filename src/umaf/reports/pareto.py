"""Score against cost: what is worth its price, and what something else beats at both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from umaf.errors import ConfigError
from umaf.reports.bars import Measured, number
from umaf.reports.theme import BLUE, GREY, SURFACE, blank, headline, short, theme

_LOG = 20.0
"""Costs that lie further apart than this are drawn on a logarithmic axis."""


@dataclass(frozen=True)
class Offer:
    """One thing that can be chosen.

    Example:
        >>> from umaf.evaluation.statistics import Interval
        >>> Offer(2.0, Interval(0.8, 0.7, 0.9, 10)).cost
        2.0
    """

    cost: float
    score: Measured


def front(offers: Mapping[str, Offer]) -> list[str]:
    """Name the offers that nothing beats: no other costs as little and scores as much; cheapest first.

    Example:
        >>> from umaf.evaluation.statistics import Interval
        >>> score = lambda value: Interval(value, value, value, 1)
        >>> front({"a": Offer(1, score(0.5)), "b": Offer(2, score(0.4)), "c": Offer(3, score(0.9))})
        ['a', 'c']
    """
    kept: list[str] = []
    best = -math.inf
    for name in sorted(offers, key=lambda one: (offers[one].cost, -number(offers[one].score.value))):
        value = number(offers[name].score.value)
        if math.isfinite(value) and math.isfinite(offers[name].cost) and value > best:
            kept.append(name)
            best = value
    return kept


def pareto_front(offers: Mapping[str, Offer], *, title: str, cost: str, score: str) -> Figure:
    """Draw every offer by cost and score, with intervals; those that nothing beats are joined and numbered.

    Args:
        offers: by name.
        title: above the figure.
        cost: what the axis below measures, with its unit; less is better.
        score: what the axis on the left measures; more is better.

    Returns:
        The figure.

    Raises:
        ConfigError: there is nothing with a finite cost and score.

    Example:
        >>> from umaf.evaluation.statistics import Interval
        >>> offers = {"a": Offer(1, Interval(0.5, 0.4, 0.6, 9)), "b": Offer(3, Interval(0.9, 0.8, 1, 9))}
        >>> figure = pareto_front(offers, title="Worth it", cost="seconds", score="accuracy")
    """
    best = front(offers)
    if not best:
        raise ConfigError("A front was asked for, but nothing has both a cost and a score; measure both.")
    with theme():
        figure = blank(3.4 + 0.24 * -(-len(best) // 2))
        axes = figure.subplots()
        costs = [one.cost for one in offers.values() if math.isfinite(one.cost)]
        if min(costs) > 0 and max(costs) / min(costs) > _LOG:
            axes.set_xscale("log")
        for name in (one for one in offers if one not in best):
            _point(axes, offers[name])
        line = [(offers[name].cost, number(offers[name].score.value)) for name in best]
        axes.step(*zip(*line, strict=True), where="post", color=BLUE, linewidth=1.4, zorder=3)
        for place, name in enumerate(best, start=1):
            _point(axes, offers[name], place=place)
        axes.margins(0.08, 0.1)
        _apart(axes)
        axes.grid()
        axes.set_xlabel(cost)
        axes.set_ylabel(score)
        names = [f"{place}  {short(name, most=24)}" for place, name in enumerate(best, start=1)]
        empty = [Line2D([], [], linestyle="none") for _ in best]
        figure.legend(empty, names, loc="outside lower left", ncols=2, handlelength=0, handletextpad=0.6)
        headline(figure, title)
    return figure


def _point(axes: Axes, offer: Offer, *, place: int | None = None) -> None:
    """Draw one offer; those of the front carry their number."""
    value, low, high = number(offer.score.value), number(offer.score.low), number(offer.score.high)
    if not math.isfinite(value) or not math.isfinite(offer.cost):
        return
    colour = GREY if place is None else BLUE
    layer = 2 if place is None else 4
    if math.isfinite(low) and math.isfinite(high):
        axes.plot([offer.cost] * 2, [low, high], color=colour, linewidth=1.2, alpha=0.7, zorder=layer)
    size = 6 if place is None else 12
    axes.plot(
        offer.cost, value, marker="o", markersize=size, color=colour, markeredgecolor=SURFACE,
        markeredgewidth=0.8, linestyle="none", zorder=layer,
    )  # fmt: skip
    if place is not None:
        axes.text(
            offer.cost, value, str(place), ha="center", va="center_baseline", fontsize=7.5,
            fontweight="bold", color="#fefefe", zorder=layer + 1,
        )  # fmt: skip


def _apart(axes: Axes) -> None:
    """Keep the axis of scores from making much of little: it spans at least a tenth."""
    low, high = axes.get_ylim()
    if high - low < 0.1:
        middle = (low + high) / 2
        axes.set_ylim(middle - 0.05, middle + 0.05)
