"""Score against cost: what is worth its price, and what something else beats at both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from umaf.errors import ConfigError
from umaf.reports.bars import Measured, number
from umaf.reports.theme import BLUE, GREY, INK, MUTED, blank, headline, short, theme

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
    """Draw every offer by cost and score, with intervals; those that nothing beats are joined and named.

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
        figure = blank(3.6)
        axes = figure.subplots()
        costs = [one.cost for one in offers.values() if math.isfinite(one.cost)]
        if min(costs) > 0 and max(costs) / min(costs) > _LOG:
            axes.set_xscale("log")
        for name, offer in offers.items():
            _point(axes, offer, chosen=name in best)
        line = [(offers[name].cost, number(offers[name].score.value)) for name in best]
        axes.step(*zip(*line, strict=True), where="post", color=BLUE, linewidth=1.4, zorder=1)
        _names(axes, offers, best)
        axes.margins(0.16, 0.14)
        axes.grid()
        axes.set_xlabel(cost)
        axes.set_ylabel(score)
        headline(figure, title)
    return figure


def _point(axes: Axes, offer: Offer, *, chosen: bool) -> None:
    value, low, high = number(offer.score.value), number(offer.score.low), number(offer.score.high)
    if not math.isfinite(value):
        return
    colour = BLUE if chosen else GREY
    if math.isfinite(low) and math.isfinite(high):
        axes.plot([offer.cost] * 2, [low, high], color=INK if chosen else colour, linewidth=1.1, zorder=2)
    axes.plot(
        offer.cost, value, marker="o", markersize=8 if chosen else 6, color=colour, linestyle="none", zorder=3
    )


def _names(axes: Axes, offers: Mapping[str, Offer], best: list[str]) -> None:
    """Write the names of the front's points, above and below in turn so that neighbours keep apart."""
    for place, name in enumerate(best):
        above = place % 2 == 0
        last = place == len(best) - 1 and len(best) > 1
        axes.annotate(
            short(name, most=22),
            (offers[name].cost, number(offers[name].score.value)),
            xytext=(-6 if last else 6, 9 if above else -9),
            textcoords="offset points",
            ha="right" if last else "left",
            va="bottom" if above else "top",
            fontsize=9.5,
            color=INK if place < 8 else MUTED,
        )
