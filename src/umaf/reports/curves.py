"""How a training went: rewards of the answers drawn, and the validation split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from umaf.errors import ConfigError
from umaf.reports.theme import BLUE, GREY, ORANGE, blank, headline, theme

SMOOTHED = 0.8


def training_curves(
    curves: Mapping[str, Sequence[float | None]], *, title: str = "Training of an expert"
) -> Figure:
    """Draw the share of right answers step by step, smoothed, and on the validation split.

    Args:
        curves: of an expert's card: "right" (or "loss") with one number per step, "validation" with its
            "validation_step".
        title: above the figure.

    Returns:
        The figure.

    Raises:
        ConfigError: there is nothing to draw.

    Example:
        >>> figure = training_curves({"right": [0.1, 0.3], "validation": [0.1], "validation_step": [0]})
    """
    name = next((name for name in ("right", "loss") if curves.get(name)), None)
    if name is None and not curves.get("validation"):
        raise ConfigError(
            "A training's curves were asked for, but the card holds none; train the expert first."
        )
    with theme():
        figure = blank(3.2)
        axes = figure.subplots()
        axes.grid(axis="y")
        if name is not None:
            values = [float("nan") if value is None else value for value in curves[name]]
            steps = range(1, len(values) + 1)
            axes.plot(steps, values, color=GREY, linewidth=0.8, alpha=0.6)
            label = "answers drawn in training" if name == "right" else "loss (nats per token)"
            axes.plot(steps, smoothed(values), color=BLUE, linewidth=1.8, label=label)
        if curves.get("validation"):
            looks = [value for value in curves["validation"] if value is not None]
            places = [step for step in curves["validation_step"] if step is not None]
            axes.plot(
                places, looks, color=ORANGE, marker="o", markersize=4, label="validation, likeliest answer"
            )
        axes.set_xlabel("step")
        axes.set_ylabel("share of right answers" if name != "loss" else "share right, and loss")
        axes.legend(loc="best")
        headline(figure, title)
    return figure


def smoothed(values: Sequence[float], keep: float = SMOOTHED) -> list[float]:
    """Give the exponential mean of a curve, started at its first value.

    Args:
        values: the curve.
        keep: share of the past in each value, in [0, 1).

    Example:
        >>> smoothed([1.0, 0.0], keep=0.5)
        [1.0, 0.5]
    """
    found: list[float] = []
    for value in values:
        found.append(value if not found else keep * found[-1] + (1 - keep) * value)
    return found
