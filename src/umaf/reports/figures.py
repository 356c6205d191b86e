"""The three figures of a transfer: where capabilities lie, how alike they are, how much arrived."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike
from sklearn.manifold import TSNE

from umaf.errors import ConfigError
from umaf.reports.bars import BarStyle, Measured, grouped_bars
from umaf.reports.heatmap import similarity_heatmap
from umaf.reports.theme import (
    BLUE,
    GREEN,
    GREY,
    MARKERS,
    MUTED,
    ORANGE,
    PALETTE,
    PURPLE,
    SURFACE,
    blank,
    headline,
    short,
    theme,
)

__all__ = ["fingerprint_map", "principal", "recovery_bars", "similarity_heatmap"]


def fingerprint_map(
    vectors: ArrayLike,
    capabilities: Sequence[str],
    architectures: Sequence[str],
    *,
    title: str = "Fingerprints, from 512 numbers to two",
    method: str = "pca",
) -> Figure:
    """Draw fingerprints as points: colour says the capability, shape the architecture.

    The two directions are the first principal components, or t-SNE's (van der Maaten and Hinton, JMLR 2008), which
    keeps neighbours together and says nothing of distances between groups. Thin spokes join each point to the middle
    of its capability: short spokes and distant middles mean that fingerprints tell capabilities
    apart whatever the architecture.

    Args:
        vectors: fingerprints, `[model, 512]` (any width).
        capabilities: one per model.
        architectures: one per model.
        title: above the figure.
        method: "pca" or "tsne" (four fingerprints or more).

    Returns:
        The figure.

    Raises:
        ConfigError: another method, fewer than two fingerprints, lists of different lengths, or values that are
            not finite.

    Example:
        >>> figure = fingerprint_map([[0, 1], [1, 0], [1, 1]], ["a", "a", "b"], ["BERT", "T5", "T5"])
    """
    table = _checked(vectors, capabilities, architectures)
    if method not in ("pca", "tsne") or (method == "tsne" and len(table) < 4):
        raise ConfigError(
            f"A map was asked for by {method!r} of {len(table)} fingerprints; pca takes two or more, tsne four or more."
        )
    points, shares = principal(table) if method == "pca" else (_neighbours(table), None)
    with theme():
        figure = blank(4.2 + 0.22 * max(len(set(capabilities)), len(set(architectures))))
        axes = figure.subplots()
        _points(axes, points, capabilities, architectures)
        axes.margins(0.1)
        axes.grid()
        axes.set_xticklabels([])
        axes.set_yticklabels([])
        if shares is None:
            axes.set_xlabel("t-SNE: neighbours matter, distances do not")
        else:
            axes.set_xlabel(f"first direction ({shares[0]:.0%} of the variance)")
            axes.set_ylabel(f"second direction ({shares[1]:.0%})")
        _map_legend(figure, list(dict.fromkeys(capabilities)), list(dict.fromkeys(architectures)))
        headline(figure, title)
    return figure


def recovery_bars(
    scores: Mapping[str, Mapping[str, Measured]],
    *,
    title: str = "Accuracy on texts nobody trained on",
    axis: str = "share answered rightly, with 95% intervals",
    chance: Mapping[str, float] | None = None,
) -> Figure:
    """Draw bare target, adapters and oracle side by side, for each capability.

    Args:
        scores: `{capability: {"bare": ..., "solve": ..., "distill": ..., "oracle": ...}}`; any of
            them can be missing, others can be added.
        title: above the figure.
        axis: what is measured, with its unit.
        chance: the score of guessing, by capability.

    Returns:
        The figure.

    Raises:
        ConfigError: there is nothing to draw.

    Example:
        >>> from umaf.evaluation.statistics import Interval
        >>> figure = recovery_bars({"tense": {"bare": Interval(0.5, 0.4, 0.6, 100)}})
    """
    known = {"bare": GREY, "solve": BLUE, "distill": GREEN, "generate": PURPLE, "oracle": ORANGE}
    ordered = {
        name: {
            key: bars[key] for key in [*(k for k in known if k in bars), *(k for k in bars if k not in known)]
        }
        for name, bars in scores.items()
    }
    others = [color for color in PALETTE if color not in known.values()]
    extra = dict.fromkeys(key for bars in scores.values() for key in bars if key not in known)
    colours = known | {key: others[i % len(others)] for i, key in enumerate(extra)}
    return grouped_bars(
        ordered, style=BarStyle(title, axis, colours=colours, marks=chance or {}, mark="chance")
    )


def _checked(vectors: ArrayLike, capabilities: Sequence[str], architectures: Sequence[str]) -> np.ndarray:
    """Read fingerprints as float64 `[model, number]`, one capability and architecture to each."""
    table = np.asarray(vectors, dtype=np.float64)
    if (
        table.ndim != 2
        or len(table) < 2
        or not len(table) == len(capabilities) == len(architectures)
        or not np.isfinite(table).all()
    ):
        raise ConfigError(
            f"A fingerprint map needs two or more finite fingerprints with a capability and an architecture each, got "
            f"shape {table.shape} with {len(capabilities)} and {len(architectures)} names; pass one row per model."
        )
    return table


def _points(
    axes: Axes, points: np.ndarray, capabilities: Sequence[str], architectures: Sequence[str]
) -> None:
    """Draw each model, and its spoke to the middle of its capability."""
    shapes = list(dict.fromkeys(architectures))
    for place, kind in enumerate(dict.fromkeys(capabilities)):
        mine = [i for i, name in enumerate(capabilities) if name == kind]
        colour, hollow = _colour(place)
        middle = points[mine].mean(axis=0)
        for i in mine:
            spoke = zip(middle, points[i], strict=True)
            axes.plot(*spoke, color=colour, linewidth=1.1, alpha=0.45, zorder=1)
            marker = MARKERS[shapes.index(architectures[i]) % len(MARKERS)]
            axes.plot(*points[i], marker=marker, **_dot(colour, hollow), zorder=2)


def principal(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Project on the first two principal components.

    Args:
        table: `[model, number]`, finite.

    Returns:
        Points `[model, 2]`, the same at every run, and the two directions' shares of the variance.

    Example:
        >>> points, shares = principal(np.array([[0.0, 0.0], [2.0, 0.0], [4.0, 0.0]]))
        >>> np.abs(points[:, 0]).round(6).tolist(), shares.round(6).tolist()
        ([2.0, 0.0, 2.0], [1.0, 0.0])
    """
    centred = table - table.mean(axis=0)
    left, sizes, right = np.linalg.svd(centred, full_matrices=False)
    # A component's sign is arbitrary; its largest loading decides, so that reruns draw the same.
    signs = np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])
    points = np.zeros((len(table), 2))
    shares = np.zeros(2)
    kept = min(2, len(sizes))
    points[:, :kept] = (left * sizes * signs)[:, :kept]
    shares[:kept] = (sizes**2 / max(np.sum(sizes**2), 1e-30))[:kept]
    return points, shares


def _neighbours(table: np.ndarray) -> np.ndarray:
    """Place points by t-SNE, the same each time: `[model, 2]`."""
    perplexity = min(30.0, (len(table) - 1) / 3)
    start = principal(table)[0]
    scale = start.std(axis=0).max() or 1.0
    fit = TSNE(perplexity=perplexity, init=cast(Any, start / scale * 1e-4), random_state=0)
    return fit.fit_transform(table)


def _colour(place: int) -> tuple[str, bool]:
    """Give the colour of the n-th capability; after one round of the palette points are hollow."""
    return PALETTE[place % len(PALETTE)], place >= len(PALETTE)


def _dot(colour: str, hollow: bool) -> dict:
    return {
        "markersize": 9.5,
        "markerfacecolor": SURFACE if hollow else colour,
        "markeredgecolor": colour if hollow else SURFACE,
        "markeredgewidth": 2.0 if hollow else 0.9,
        "linestyle": "none",
    }


def _map_legend(figure: Figure, kinds: Sequence[str], shapes: Sequence[str]) -> None:
    """Write one legend in two columns: capabilities by colour, architectures by shape."""
    empty = Line2D([], [], linestyle="none")
    left = [Line2D([], [], marker="o", **_dot(*_colour(i))) for i in range(len(kinds))]
    right = [
        Line2D([], [], marker=MARKERS[i % len(MARKERS)], color=MUTED, markersize=8.5, linestyle="none")
        for i in range(len(shapes))
    ]
    rows = max(len(left), len(right))
    handles = [empty, *left, *[empty] * (rows - len(left)), empty, *right, *[empty] * (rows - len(right))]
    gap = [""] * rows
    words = ["Capability", *(short(name) for name in kinds), *gap[len(left) :]]
    words += ["Architecture", *(short(name) for name in shapes), *gap[len(right) :]]
    legend = figure.legend(
        handles, words, loc="outside lower left", ncols=2, handletextpad=0.3, columnspacing=2.5
    )
    for text in legend.get_texts():
        if text.get_text() in ("Capability", "Architecture"):
            text.set_fontweight("bold")
