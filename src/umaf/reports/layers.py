"""How much each layer changed, from the first to the last."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from umaf.errors import ConfigError
from umaf.reports.theme import BLUE, INK, blank, headline, short, theme


def layer_bars(values: Mapping[str, float], *, title: str = "Change of each layer", axis: str = "") -> Figure:
    """Draw one bar per layer, in the order given, first layer above.

    Args:
        values: a number of 0 or more by layer.
        title: above the figure.
        axis: what the bars measure.

    Returns:
        The figure.

    Raises:
        ConfigError: there is no layer.

    Example:
        >>> figure = layer_bars({"layers.0": 0.1, "layers.1": 0.2}, axis="norm of the change")
    """
    if not values:
        raise ConfigError("Bars of layers were asked for, but there is no layer; look at the table instead.")
    names = list(values)
    numbers = np.array([value if np.isfinite(value) else 0.0 for value in values.values()])
    with theme():
        figure = blank(min(12.0, 1.3 + 0.24 * len(names)))
        axes = figure.subplots()
        axes.barh(np.arange(len(names)), numbers, color=BLUE, height=0.78, linewidth=0)
        axes.invert_yaxis()
        each = max(1, len(names) // 40)
        axes.set_yticks(
            np.arange(len(names))[::each], [short(name, most=22) for name in names[::each]], color=INK
        )
        axes.tick_params(axis="y", labelsize=9)
        axes.grid(axis="x")
        axes.spines["bottom"].set_visible(False)
        axes.set_xlabel(axis)
        headline(figure, title)
    return figure
