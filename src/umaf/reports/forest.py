"""Many numbers with their intervals, one under the other, with what was aimed at."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from matplotlib.figure import Figure as Drawing

from umaf.errors import ConfigError
from umaf.evaluation.summary import Figure
from umaf.reports.bars import number
from umaf.reports.theme import BLUE, INK, LINE, VERMILION, blank, headline, short, theme

MOST = 28
"""So many rows fit one drawing."""


def aim_of(aim: float | str | None) -> tuple[str, float] | None:
    """Read an aim as a direction and a number; None where there is none to read.

    Example:
        >>> aim_of(">= 0.70"), aim_of("<= 2"), aim_of(0.65), aim_of("as good as before")
        (('>=', 0.7), ('<=', 2.0), ('>=', 0.65), None)
    """
    if aim is None or isinstance(aim, bool):
        return None
    if isinstance(aim, int | float):
        return ">=", float(aim)
    found = re.fullmatch(r"\s*(>=|<=|>|<)\s*(-?\d+(?:\.\d+)?)\s*", aim)
    return (found[1][0] + "=", float(found[2])) if found else None


def met(figure: Figure) -> bool | None:
    """Say whether a figure reached its aim; None where it has none, or was not measured.

    Example:
        >>> met(Figure(0.72, aim=">= 0.70")), met(Figure(0.72, aim="<= 0.5")), met(Figure(0.72))
        (True, False, None)
    """
    aim, value = aim_of(figure.aim), number(figure.value)
    if aim is None or not math.isfinite(value):
        return None
    return value >= aim[1] if aim[0] == ">=" else value <= aim[1]


def forest(figures: Mapping[str, Figure], *, title: str, axis: str = "") -> Drawing:
    """Draw figures as dots with intervals; a bar across a row is its aim, orange where it was missed.

    Args:
        figures: by name, at most `MOST`.
        title: above the drawing.
        axis: what is measured.

    Returns:
        The drawing.

    Raises:
        ConfigError: none of them has a value, or there are too many.

    Example:
        >>> drawing = forest({"recovery": Figure(0.7, 0.6, 0.8, 9, ">= 0.70")}, title="Figures")
    """
    known = {name: one for name, one in figures.items() if math.isfinite(number(one.value))}
    if not known or len(known) > MOST:
        raise ConfigError(
            f"A drawing holds 1 to {MOST} figures with a value, got {len(known)}; pass fewer, or draw none."
        )
    with theme():
        drawing = blank(1.35 + 0.25 * len(known))
        axes = drawing.subplots()
        for row, one in enumerate(known.values()):
            value, low, high = number(one.value), number(one.low), number(one.high)
            aim = aim_of(one.aim)
            if aim is not None:
                axes.plot(
                    [aim[1]] * 2, [row - 0.36, row + 0.36], color=INK, linewidth=1.6,
                    label="aim" if row == 0 else None,
                )  # fmt: skip
            colour = VERMILION if met(one) is False else BLUE
            if math.isfinite(low) and math.isfinite(high):
                axes.plot([low, high], [row, row], color=colour, linewidth=2.4, alpha=0.55)
            axes.plot(value, row, marker="o", markersize=6.5, color=colour, linestyle="none")
        axes.set_yticks(range(len(known)), [short(name, most=30) for name in known], color=INK)
        axes.tick_params(axis="y", labelsize=9)
        axes.set_ylim(len(known) - 0.4, -0.6)
        axes.grid(axis="x")
        low, high = axes.get_xlim()
        if low < 0 < high:
            axes.axvline(0, color=LINE, linewidth=1.4)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(axis)
        headline(drawing, title)
    return drawing
