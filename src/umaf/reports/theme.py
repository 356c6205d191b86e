"""Colours and type of every figure.

The palette is Okabe and Ito's (Color Universal Design, 2008), which readers with any of the common
colour blindnesses can tell apart. Ink and surface are named, so that a page can swap them for
its dark mode: a figure uses no other grey, black or white.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#e69f00", "#009e73", "#cc79a7"
SKY, VERMILION, YELLOW, GREY = "#56b4e9", "#d55e00", "#f0e442", "#8a939d"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, YELLOW, GREY)
MARKERS = ("o", "s", "^", "D", "P", "X", "v", "*", "<", ">")

INK, MUTED, LINE, SURFACE = "#1f2328", "#59636e", "#d8dee4", "#ffffff"
DARK = {INK: "#e6edf3", MUTED: "#9da7b1", LINE: "#343b44", SURFACE: "#12161c", BLUE: "#3a9bdc"}
"""What each colour becomes on a dark page; the blue is lifted to keep its contrast."""

WIDTH = 4.5
"""Inches. Narrow on purpose: the same drawing stays readable at the width of a phone."""

_STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 11,
    "text.color": INK,
    "text.parse_math": False,  # a "$" in somebody's model name is a "$"
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 10.5,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 10.5,
    "figure.facecolor": SURFACE,
    "figure.constrained_layout.h_pad": 0.07,
    "figure.constrained_layout.w_pad": 0.07,
    "svg.fonttype": "none",
    "svg.hashsalt": "umaf",
}


@contextmanager
def theme() -> Iterator[None]:
    """Draw with the house style inside this block, and leave the caller's settings as they were.

    Example:
        >>> with theme():
        ...     figure = Figure()
    """
    with mpl.rc_context(_STYLE):
        yield


def blank(height: float) -> Figure:
    """Open an empty figure of the house width.

    Args:
        height: in inches.

    Returns:
        A figure that belongs to no window and no global state.

    Example:
        >>> float(blank(3.0).get_figwidth())
        4.5
    """
    return Figure(figsize=(WIDTH, height), layout="constrained")


def headline(figure: Figure, title: str) -> None:
    """Write a figure's title, flush left and broken into lines that fit.

    Example:
        >>> headline(blank(3.0), "A title")
    """
    lines = "\n".join(textwrap.wrap(title, 40)) or " "
    figure.suptitle(lines, x=0.018, ha="left", fontsize=12.5, fontweight="bold")


def bare_axes(axes: Axes) -> None:
    """Take an axes' frame and ticks away.

    Example:
        >>> bare_axes(blank(3.0).subplots())
    """
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def short(name: str, *, most: int = 26) -> str:
    """Shorten a name that would not fit, keeping both ends.

    Example:
        >>> short("a-very-long-model-name-indeed-v2", most=13)
        'a-very…eed-v2'
    """
    clean = " ".join(name.split())
    if len(clean) <= most:
        return clean
    half = (most - 1) // 2
    return f"{clean[:half]}…{clean[-half:]}"
