"""Horizontal bars in groups, with intervals: the figure behind every comparison of scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from umaf.errors import ConfigError
from umaf.reports.theme import INK, LINE, MUTED, PALETTE, blank, headline, short, theme

_IN_A_ROW = 5
"""So many series fit side by side in the legend."""


class Measured(Protocol):
    """Anything with a value and an interval: an `Interval`, a `Score`, a summary's `Figure`."""

    @property
    def value(self) -> float | None: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...


@dataclass(frozen=True)
class BarStyle:
    """How grouped bars are labelled.

    Attributes:
        title: above the figure.
        axis: what the bars measure, with its unit.
        colours: a colour by series; the palette's, in order, for the rest.
        marks: a value by group, drawn as a dotted line across it.
        mark: what that line means, for the legend.

    Example:
        >>> BarStyle(title="Accuracy", axis="share right").marks
        {}
    """

    title: str
    axis: str
    colours: Mapping[str, str] = field(default_factory=dict)
    marks: Mapping[str, float] = field(default_factory=dict)
    mark: str = "chance"


def grouped_bars(groups: Mapping[str, Mapping[str, Measured]], *, style: BarStyle) -> Figure:
    """Draw one group of bars per key, one bar per series, each with its value and interval.

    The bars lie, with the group's name above them: names of any length stay readable on a phone.

    Args:
        groups: `{group: {series: measured}}`; a series missing from a group leaves a gap.
        style: title, axis, colours and marks.

    Returns:
        The figure.

    Raises:
        ConfigError: there is no group, or no series in any.

    Example:
        >>> from umaf.evaluation.statistics import Interval
        >>> data = {"sentiment": {"bare": Interval(0.5, 0.4, 0.6, 100)}}
        >>> figure = grouped_bars(data, style=BarStyle("Accuracy", "share right"))
    """
    series = list(dict.fromkeys(name for bars in groups.values() for name in bars))
    if not series:
        raise ConfigError(
            "Asked to draw bars, found no group with a bar in it; pass at least one measured value."
        )
    colours = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(series)} | dict(style.colours)
    rows = len(groups) * (len(series) + 1.9)
    legend_rows = -(-(len(series) + bool(style.marks)) // _IN_A_ROW)
    with theme():
        figure = blank(1.1 + 0.215 * rows + 0.24 * legend_rows)
        axes = figure.subplots()
        right, left = _reach(groups)
        top = 0.0
        for name, bars in groups.items():
            axes.text(left, top, short(name, most=44), va="center", fontweight="bold", fontsize=11)
            for place, one in enumerate(series):
                if one in bars:
                    _bar(axes, top + 1.05 + place, bars[one], colour=colours[one], pad=0.012 * (right - left))
            _mark(axes, style.marks.get(name), top + 0.5, top + 0.6 + len(series))
            top += len(series) + 1.9
        _frame(axes, left=left, right=right, bottom=top - 1.1)
        axes.set_xlabel(style.axis)
        handles: list = [Patch(color=colours[name], label=name) for name in series]
        if style.marks:
            handles += axes.plot(
                [], [], color=INK, linewidth=1.4, linestyle=(0, (1.2, 1.6)), label=style.mark
            )
        _legend(axes, handles)
        headline(figure, style.title)
    return figure


def number(value: float | None) -> float:
    """Read a measured number; NaN where there is none.

    Example:
        >>> number(None)
        nan
    """
    return math.nan if value is None else float(value)


def _reach(groups: Mapping[str, Mapping[str, Measured]]) -> tuple[float, float]:
    """Find where the axis ends on the right, with room for a printed value, and on the left."""
    ends = [
        number(x) for bars in groups.values() for bar in bars.values() for x in (bar.value, bar.low, bar.high)
    ]
    known = [end for end in ends if math.isfinite(end)] or [1.0]
    right = max(*known, 0.0)
    left = min(*known, 0.0)
    # Shares end at 1: the axis shows the whole of what was possible.
    right = 1.0 if 0.4 < right <= 1.0 else right or 1.0
    return right + 0.13 * (right - left), left


def _bar(axes: Axes, place: float, bar: Measured, *, colour: str, pad: float) -> None:
    """Draw one bar, its interval as a whisker, and its value behind both."""
    value, low, high = number(bar.value), number(bar.low), number(bar.high)
    if not math.isfinite(value):
        axes.text(pad, place, "not measured", va="center", fontsize=9, color=MUTED, fontstyle="italic")
        return
    axes.barh(place, value, height=0.82, color=colour, linewidth=0)
    end = max(value, 0.0)
    if math.isfinite(low) and math.isfinite(high):
        axes.plot([low, high], [place, place], color=INK, linewidth=1.5, solid_capstyle="butt")
        for edge in (low, high):
            axes.plot([edge, edge], [place - 0.2, place + 0.2], color=INK, linewidth=1.5)
        end = max(end, high)
    axes.text(end + pad, place, f"{value:.2f}", va="center", fontsize=10)


def _mark(axes: Axes, value: float | None, top: float, bottom: float) -> None:
    """Draw a group's dotted line."""
    if value is not None:
        axes.plot([value, value], [top, bottom], color=INK, linewidth=1.4, linestyle=(0, (1.2, 1.6)))


def _legend(axes: Axes, handles: list) -> None:
    """Name the series above the bars, row by row as one reads."""
    rows = -(-len(handles) // _IN_A_ROW)
    columns = -(-len(handles) // rows)
    # matplotlib fills a legend column by column.
    across = [handles[i] for column in range(columns) for i in range(column, len(handles), columns)]
    axes.legend(
        handles=across,
        labels=[short(str(handle.get_label())) for handle in across],
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0,
        borderpad=0.3,
        ncols=columns,
        columnspacing=1.0,
        handlelength=1.0,
        handletextpad=0.4,
    )


def _frame(axes: Axes, *, left: float, right: float, bottom: float) -> None:
    """Set the limits, a light grid, and a line at zero."""
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, -0.95)
    axes.set_yticks([])
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.axvline(0, color=LINE if left == 0 else MUTED, linewidth=1.2)
