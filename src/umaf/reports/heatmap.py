"""How alike models are: a matrix of similarities, ordered by their tree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from scipy.cluster.hierarchy import dendrogram, linkage
from scipy.spatial.distance import squareform

from umaf.errors import ConfigError
from umaf.reports.theme import INK, LINE, MUTED, SURFACE, bare_axes, blank, headline, short, theme

_PRINTED = 10
"""Up to so many models the similarities are printed in the cells; beyond, a scale is drawn."""
_VECTOR = 24
"""Up to so many models the cells are drawn one by one; beyond, as one picture, to keep the file small."""


def similarity_heatmap(
    matrix: ArrayLike,
    names: Sequence[str],
    *,
    metric: str = "cosine",
    title: str = "How alike the fingerprints are",
) -> Figure:
    """Draw a similarity matrix, models that are alike next to each other, their tree above.

    The order is the leaf order of an average-linkage clustering (scipy). Rows and columns are in
    the same order; columns carry the row's number.

    Args:
        matrix: similarities, larger is more alike, `[model, model]`, symmetric.
        names: one per model.
        metric: what was computed, for the legend.
        title: above the figure.

    Returns:
        The figure.

    Raises:
        ConfigError: the matrix is not square, symmetric and finite, or the names do not fit.

    Example:
        >>> figure = similarity_heatmap([[1, 0.2], [0.2, 1]], ["BERT", "LLaMA"])
    """
    table = np.asarray(matrix, dtype=np.float64)
    size = len(names)
    if (
        table.shape != (size, size)
        or size < 2
        or not np.isfinite(table).all()
        or not np.allclose(table, table.T, atol=1e-4)
    ):
        raise ConfigError(
            f"A similarity heatmap needs a finite symmetric matrix with one row per name and two or more names, got "
            f"shape {table.shape} for {size} names; pass similarities both ways round."
        )
    tree = _tree(table)
    order = [int(leaf) for leaf in tree["leaves"]]
    with theme():
        figure = blank(4.9)
        above, axes = figure.subplots(2, 1, height_ratios=[1, 7], sharex=True)
        _draw_tree(above, tree)
        ordered = table[np.ix_(order, order)]
        _cells(axes, ordered, printed=size <= _PRINTED)
        _number(figure, axes, [names[i] for i in order], metric=metric)
        headline(figure, title)
    return figure


def _number(figure: Figure, axes: Axes, names: Sequence[str], *, metric: str) -> None:
    """Name and number the rows, number the columns, and say what the cells are."""
    size = len(names)
    each = max(1, size // 24)
    axes.set_yticks(
        np.arange(size)[::each] + 0.5,
        [f"{short(name, most=20)}\u2003{place + 1}" for place, name in list(enumerate(names))[::each]],
        color=INK,
    )
    apart = each * (1 if size <= 16 else 2)
    axes.set_xticks(np.arange(size)[::apart] + 0.5, [str(place + 1) for place in range(size)][::apart])
    axes.tick_params(axis="x", labelsize=10 if size <= 10 else 8)
    note = f"{metric} similarity; columns are numbered like rows"
    figure.supxlabel(note, x=0.018, ha="left", fontsize=10, color=MUTED)


def _tree(table: np.ndarray) -> dict:
    """Cluster by average linkage on distance = largest similarity - similarity."""
    distance = table.max() - table
    np.fill_diagonal(distance, 0.0)
    links = linkage(
        squareform((distance + distance.T) / 2, checks=False), method="average", optimal_ordering=True
    )
    return dendrogram(links, no_plot=True)


def _draw_tree(axes: Axes, tree: dict) -> None:
    # scipy puts leaf k at 10 k + 5; cells are one wide.
    for xs, ys in zip(tree["icoord"], tree["dcoord"], strict=True):
        axes.plot(np.array(xs) / 10, ys, color=MUTED, linewidth=1.2, solid_joinstyle="miter")
    axes.set_ylim(0, 1.04 * max(max(ys) for ys in tree["dcoord"]) or 1.0)
    bare_axes(axes)


def _cells(axes: Axes, table: np.ndarray, *, printed: bool) -> None:
    """Draw the cells, and their values or a scale."""
    size = len(table)
    apart = table[~np.eye(size, dtype=bool)]
    colours = colormaps["cividis"]
    low, high = float(apart.min()), float(max(apart.max(), table.diagonal().max()))
    mesh = axes.pcolormesh(
        table,
        cmap=colours,
        vmin=low,
        vmax=high if high > low else low + 1,
        edgecolors=SURFACE if size <= _VECTOR else "none",
        linewidth=1.2 if size <= _PRINTED else 0.5,
        rasterized=size > _VECTOR,
    )
    axes.invert_yaxis()
    for spine in axes.spines.values():
        spine.set_visible(False)
    if not printed:
        bar = axes.figure.colorbar(mesh, ax=axes, shrink=0.7, aspect=30, pad=0.02)
        bar.outline.set_edgecolor(LINE)  # type: ignore[operator]
        bar.solids.set_rasterized(True)  # type: ignore[union-attr]
        return
    for (row, column), value in np.ndenumerate(table):
        red, green, blue, _ = mesh.to_rgba(np.array([value]))[0]
        light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
        axes.text(
            column + 0.5,
            row + 0.5,
            _brief(value),
            ha="center",
            va="center",
            fontsize=10.5 if size <= 6 else 9.5 if size <= 8 else 7.5,
            color="#111112" if light else "#fefefe",
        )


def _brief(value: float) -> str:
    """Write a similarity in the room of a cell: .82, 1, −.14."""
    text = f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 0.995 else f"{value:.0f}"
    return "0" if text.lstrip("-") == ".00" else text.replace("-", "−")
