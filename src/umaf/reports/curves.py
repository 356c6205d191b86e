"""Numbers over the steps of a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from umaf.errors import ConfigError
from umaf.reports.theme import PALETTE, VERMILION, blank, headline, short, theme

Curve = tuple[Sequence[float], Sequence[float]]
_SMOOTH = 60
"""From so many points on a curve is drawn faint, with its running mean over it."""


def training_curves(
    curves: Mapping[str, Curve], *, title: str, axis: str = "", steps: str = "step"
) -> Figure:
    """Draw one line per series; a number that was NaN is a cross at the foot.

    Args:
        curves: name -> (steps, values).
        title: above the figure.
        axis: what is measured, with its unit.
        steps: what is counted below.

    Returns:
        The figure.

    Raises:
        ConfigError: there is no curve with a point.

    Example:
        >>> figure = training_curves({"loss": ([1, 2, 3], [2.0, 1.0, 0.5])}, title="Loss")
    """
    shown = {name: curve for name, curve in curves.items() if len(curve[1])}
    if not shown:
        raise ConfigError("Curves were asked for, but none has a point; pass at least one step.")
    with theme():
        named = len(shown) > 1
        figure = blank(2.9 + (0.22 * -(-len(shown) // 2) if named else 0.0))
        axes = figure.subplots()
        for place, (name, (xs, ys)) in enumerate(shown.items()):
            _line(axes, np.asarray(xs, float), np.asarray(ys, float), PALETTE[place % len(PALETTE)], name)
        axes.grid(axis="y")
        axes.margins(x=0.02)
        axes.set_xlabel(steps)
        axes.set_ylabel(axis)
        if named:
            figure.legend(loc="outside lower left", ncols=2)
        headline(figure, title)
    return figure


def _line(axes: Axes, xs: np.ndarray, ys: np.ndarray, colour: str, name: str) -> None:
    order = np.argsort(xs, kind="stable")
    xs, ys = xs[order], ys[order]
    known = np.isfinite(ys)
    label = short(name, most=30)
    mark = "o" if known.sum() < 12 else None
    if known.sum() < _SMOOTH:
        axes.plot(xs, ys, color=colour, linewidth=1.8, marker=mark, markersize=4, label=label)
    else:
        axes.plot(xs, ys, color=colour, linewidth=0.8, alpha=0.35)
        width = max(2, int(known.sum()) // 20)
        smooth = np.convolve(ys[known], np.ones(width) / width, mode="valid")
        axes.plot(xs[known][width - 1 :], smooth, color=colour, linewidth=2.0, label=label)
    if not known.all():
        foot = float(ys[known].min()) if known.any() else 0.0
        axes.plot(
            xs[~known], np.full((~known).sum(), foot), color=VERMILION, marker="x", markersize=7,
            linestyle="none", label="not a number" if known.any() else f"{label}: not a number",
        )  # fmt: skip
