"""Where a model was changed: one row per layer, one column per kind of module."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from umaf.errors import ConfigError
from umaf.reports.theme import INK, LINE, MUTED, blank, headline, short, theme


def change_map(
    cells: Mapping[tuple[str, str], float], *, title: str = "Where the weights changed", unit: str = ""
) -> Figure:
    """Draw how much changed in each layer and kind of module, as a map of colours.

    Args:
        cells: numbers of 0 or more by (layer, kind); what is missing stays empty. The order is that of the keys.
        title: above the figure.
        unit: what the colours measure.

    Returns:
        The figure.

    Raises:
        ConfigError: there is no cell.

    Example:
        >>> figure = change_map({("layers.0", "q_proj"): 0.1, ("layers.1", "q_proj"): 0.2})
    """
    if not cells:
        raise ConfigError(
            "A map of changes was asked for, but no tensor lies in a numbered layer; look at the table instead."
        )
    rows = list(dict.fromkeys(layer for layer, _ in cells))
    columns = list(dict.fromkeys(kind for _, kind in cells))
    table = np.full((len(rows), len(columns)), np.nan)
    for (layer, kind), value in cells.items():
        table[rows.index(layer), columns.index(kind)] = value if np.isfinite(value) else np.nan
    with theme():
        figure = blank(min(14.0, 2.6 + 0.22 * len(rows) + 0.06 * max(len(name) for name in columns)))
        axes = figure.subplots()
        high = float(np.nanmax(table)) if np.isfinite(table).any() else 0.0
        mesh = axes.pcolormesh(table, cmap=colormaps["cividis"], vmin=0, vmax=high or 1.0, rasterized=True)
        axes.invert_yaxis()
        each = max(1, len(rows) // 32)
        axes.set_yticks(
            np.arange(len(rows))[::each] + 0.5, [short(name, most=20) for name in rows[::each]], color=INK
        )
        names = [short(name.removesuffix(".weight"), most=30) for name in columns]
        axes.set_xticks(np.arange(len(columns)) + 0.5, names, rotation=90, color=INK)
        axes.tick_params(labelsize=8)
        for spine in axes.spines.values():
            spine.set_visible(False)
        bar = figure.colorbar(mesh, ax=axes, shrink=0.7, aspect=30, pad=0.02)
        bar.outline.set_edgecolor(LINE)  # type: ignore[operator]
        bar.set_label(unit, color=MUTED)
        headline(figure, title)
    return figure
