"""Tables of scores and comparisons, as every command that evaluates prints them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from umaf.evaluation.assess import Result
    from umaf.evaluation.change import Change
    from umaf.evaluation.compare import Comparison

SURE = 0.05


def show_results(console: Console, results: Sequence[Result], title: str) -> None:
    """Print one row per task and model; the model is in the title where there is only one."""
    models = list(dict.fromkeys(one.model for one in results))
    named = len(models) > 1
    heading = title if named else f"{models[0]}, {title}"
    columns = ("task", "model", "metric") if named else ("task", "metric")
    table = Table(*columns, title=escape(heading), title_justify="left")
    for column in ("score", "95% interval", "normalised", "texts"):
        table.add_column(column, justify="right", no_wrap=True)
    for task in dict.fromkeys(one.task for one in results):
        for place, one in enumerate(each for each in results if each.task == task):
            own = one.normalised
            interval = "–" if math.isnan(one.low) else f"{one.low:.2f} to {one.high:.2f}"
            row = [one.metric, f"{one.value:.3f}", interval, "–" if own is None else f"{own.value:.2f}"]
            # One task's models stand under each other; its name once is enough.
            names = [escape(task) if not place else "", escape(one.model)] if named else [escape(task)]
            table.add_row(*names, *row, str(one.n))
    console.print(table)
    for one in results:
        if one.truncated:
            who = f" by {escape(one.model)}" if named else ""
            console.print(
                f"{one.truncated} of {one.n} texts of {escape(one.task)} were cut to the window{who}."
            )


def show_comparisons(console: Console, comparisons: Sequence[Comparison]) -> None:
    """Print who is better than whom, by how much, and whether that could be chance."""
    if not comparisons:
        return
    froms = list(dict.fromkeys(one.first for one in comparisons))
    title = "Differences, item by item" + (f", from {escape(froms[0])}" if len(froms) == 1 else "")
    table = Table("task", *(["from"] if len(froms) > 1 else []), "to", title=title, title_justify="left")
    for column in ("gain", "95% interval", "lost", "p", "p Holm"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in comparisons:
        interval = "–" if math.isnan(one.low) else f"{one.low:+.2f} to {one.high:+.2f}"
        lost = "–" if one.lost is None else f"{one.lost:+.2f}"
        gain = f"{one.gain:+.3f}{' *' if one.corrected < SURE else ''}"
        names = [escape(one.task), *([escape(one.first)] if len(froms) > 1 else []), escape(one.second)]
        table.add_row(*names, gain, interval, lost, f"{one.p:.2g}", f"{one.corrected:.2g}")
    console.print(table)
    console.print(
        "Gain: above zero is better. Lost: the same the other way round, with chance at 0 and perfect at 1. * p below "
        f"{SURE} after Holm's correction over the table.",
        highlight=False,
    )


def show_change(console: Console, change: Change) -> None:
    """Print what a transfer or a merge brought and what it cost elsewhere."""
    show_comparisons(console, [*change.wanted, *change.elsewhere])
    lost = change.forgotten
    if lost is not None:
        interval = "" if math.isnan(lost.low) else f" ({lost.low:+.3f} to {lost.high:+.3f})"
        console.print(
            f"forgotten elsewhere: {lost.value:+.3f}{interval} of the way from chance to perfect, mean of {lost.n} "
            "other tasks; below zero it gained",
            highlight=False,
            soft_wrap=True,
        )
    for task, why in change.unasked.items():
        console.print(f"{escape(task)} was not asked: {escape(why)}", highlight=False, soft_wrap=True)
