"""Evaluations, and transfers and merges that were asked what they brought and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from umaf.evaluation.statistics import Interval
from umaf.reports.bars import BarStyle, Measured, grouped_bars
from umaf.reports.blocks import (
    Block,
    Cell,
    Gallery,
    Paragraph,
    Picture,
    Section,
    Signed,
    Table,
    Tile,
    Tiles,
)
from umaf.reports.known import Found
from umaf.reports.pages.parts import again, command_line, fraction, measured, record_of
from umaf.reports.pareto import Offer, pareto_front
from umaf.reports.theme import BLUE, GREY

SURE = 0.05
_AT_ONCE = 10
"""Tasks in one drawing."""


def evaluation(found: Found) -> list[Section]:
    """Tell of a record of `umaf evaluate`."""
    record = record_of(found)
    rows = record.numbers["results"]
    comparisons = record.numbers.get("comparisons") or []
    models, tasks = _names(rows, "model"), _names(rows, "task")
    tiles = [
        Tile("Models", len(models)),
        Tile("Tasks", len(tasks)),
        Tile("Answers", sum(int(row["n"]) for row in rows)),
    ]
    if comparisons:
        sure = sum(row["corrected"] < SURE for row in comparisons)
        tiles.append(Tile("Sure differences", f"{sure} of {len(comparisons)}", "after Holm's correction"))
    blocks: list[Block] = [Tiles(tiles), *_pictures(rows), _table(rows)]
    parts = [Section("Scores", blocks, lead="With 95 % bootstrap intervals over texts.")]
    if comparisons:
        against = record.numbers.get("against")
        lead = (
            f"Each model beside {against}, on the same texts."
            if against
            else "Every two models, on the same texts."
        )
        parts.append(Section("Differences", [comparison_table(comparisons)], lead=lead))
    offers = _offers(rows, record.numbers.get("parameters") or {})
    if offers is not None:
        parts.append(Section("Score against size", [offers]))
    return [*parts, again(found, command_line("evaluate", record.config, places=["model"]))]


def change(found: Found) -> list[Section]:
    """Tell what a transfer or a merge brought, and what it cost elsewhere."""
    record = record_of(found)
    numbers = record.numbers
    merged = record.kind == "merged"
    word = "merge" if merged else "transfer"
    tiles = [
        Tile(f"Gain on {row['task']}", Signed(row["gain"], row["low"], row["high"]), "above 0 is better")
        for row in numbers["wanted"][:3]
    ]
    lost = measured(numbers.get("forgotten"))
    if lost is not None:
        note = "of the way from chance to perfect; below 0 it gained"
        tiles.append(Tile("Forgotten elsewhere", Signed(lost.value, lost.low, lost.high), note))
    rows = numbers["results"]
    half = len(rows) // 2
    pairs = [
        {**row, "model": who}
        for who, part in (("before", rows[:half]), ("after", rows[half:]))
        for row in part
    ]
    blocks: list[Block] = [Tiles(tiles)] if tiles else []
    blocks += [*_pictures(pairs), _table(pairs)]
    parts = [Section(f"What the {word} brought", blocks, lead=_lead(record.config, merged))]
    table = comparison_table([*numbers["wanted"], *numbers["elsewhere"]], forgetting=True)
    aside = [
        Paragraph(f"{task} was not asked: {why}") for task, why in (numbers.get("unasked") or {}).items()
    ]
    lead = "A gain is above zero. Lost is the loss in normalised score: 0 is guessing, 1 is perfect."
    parts.append(Section("What it cost elsewhere", [table, *aside], lead=lead))
    parts += _experts(numbers.get("experts") or {}, pairs, _names(numbers["wanted"], "task"))
    parts += _sources(numbers)
    places = ["recipe", "out"] if merged else []
    return [*parts, again(found, command_line(word, record.config, places=places))]


def comparison_table(rows: Sequence[Mapping[str, Any]], *, forgetting: bool = False) -> Table:
    """Put comparisons into a table, the sure ones marked."""
    columns = ["task", *([] if forgetting else ["from", "to"]), "gain", "lost", "p", "p after Holm"]
    cells: list[list[Cell]] = []
    for row in rows:
        gain = Signed(row["gain"], row["low"], row["high"])
        names = [] if forgetting else [row["first"], row["second"]]
        mark = " *" if row["corrected"] < SURE else ""
        p = [f"{row['p']:.2g}", f"{row['corrected']:.2g}{mark}"]
        cells.append([row["task"], *names, gain, fraction(row.get("lost"), digits=2), *p])
    note = f"* below {SURE}. Right and wrong answers by McNemar's exact test, other numbers by a paired bootstrap."
    return Table("Item by item, on the same texts", columns, cells, note=note)


def _names(rows: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(str(row[key]) for row in rows))


def _pictures(rows: Sequence[Mapping[str, Any]]) -> list[Block]:
    """Bars of the normalised scores, so that every task has one axis; a drawing holds ten tasks."""
    tasks = [
        name for name in _names(rows, "task") if any(_normal(row) for row in rows if row["task"] == name)
    ]
    models = _names(rows, "model")
    if not tasks or len(models) > 8:
        return []
    pictures = []
    for start in range(0, len(tasks), _AT_ONCE):
        groups = {
            task: {
                row["model"]: found
                for row in rows
                if row["task"] == task and (found := _normal(row)) is not None
            }
            for task in tasks[start : start + _AT_ONCE]
        }
        known = {"before": GREY, "after": BLUE} if set(models) == {"before", "after"} else {}
        style = BarStyle("Normalised scores", "0 is guessing, 1 is perfect; 95% intervals", colours=known)
        pictures.append(
            Picture(
                grouped_bars(groups, style=style),
                caption="Each score with chance at 0 and perfect at 1, so that tasks can be read beside each other.",
                alt=f"Bars of the normalised scores of {', '.join(models)} on {', '.join(groups)}.",
                name="scores",
            )
        )
    return [Gallery(pictures)] if len(pictures) > 1 else list(pictures)


def _normal(row: Mapping[str, Any]) -> Measured | None:
    found = row.get("normalised")
    return measured({**found, "n": row["n"]}) if isinstance(found, Mapping) else None


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    models = _names(rows, "model")
    cells: list[list[Cell]] = []
    for task in _names(rows, "task"):
        mine = {row["model"]: row for row in rows if row["task"] == task}
        one = next(iter(mine.values()))
        cells.append(
            [task, str(one["metric"]), fraction(one.get("chance"), digits=2)]
            + [measured(mine.get(model)) for model in models]
            + [int(one["n"])]
        )
    cut = sum(int(row.get("truncated") or 0) for row in rows)
    note = f"{cut} texts were cut to a model's window." if cut else ""
    return Table("Scores as measured", ["task", "metric", "chance", *models, "texts"], cells, note=note)


def _offers(rows: Sequence[Mapping[str, Any]], sizes: Mapping[str, Any]) -> Picture | None:
    """Mean normalised score against parameters, where models differ in size."""
    offers = {}
    for model in _names(rows, "model"):
        mine = [found.value for row in rows if row["model"] == model and (found := _normal(row)) is not None]
        if mine and isinstance(sizes.get(model), int):
            value = sum(float(one or 0.0) for one in mine) / len(mine)
            offers[model] = Offer(sizes[model] / 1e6, Interval(value, float("nan"), float("nan"), len(mine)))
    if len({one.cost for one in offers.values()}) < 2:
        return None
    figure = pareto_front(
        offers, title="What size buys", cost="million parameters", score="mean normalised score"
    )
    return Picture(
        figure,
        caption="Models on the line are beaten by no smaller one. A mean over the tasks above, chance at 0.",
        alt=f"Mean normalised score against parameters of {', '.join(offers)}.",
        name="size",
    )


def _experts(
    experts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], tasks: Sequence[str]
) -> list[Section]:
    if not experts:
        return []
    cells: list[list[Cell]] = []
    for task in tasks:
        mine: dict[str, Cell] = {str(row["model"]): measured(row) for row in rows if row["task"] == task}
        others = [measured(by_task.get(task)) for by_task in experts.values()]
        cells.append([task, mine.get("before"), mine.get("after"), *others])
    columns = ["task", "base", "merged", *experts]
    return [Section("Beside its parents", [Table("Scores as measured", columns, cells)])]


def _sources(numbers: Mapping[str, Any]) -> list[Section]:
    """Tell where the capabilities of a transfer came from."""
    sources = numbers.get("sources")
    if not sources:
        return []
    cells: list[list[Cell]] = [
        [
            str(row["model"]),
            f"{row['weight']:g}",
            int(row["probes"]),
            "nothing"
            if row.get("unchanged")
            else fraction(row.get("strength"))
            if row.get("base")
            else "no base given",
        ]
        for row in sources
    ]
    table = Table("Sources", ["model", "share", "probes", "change from its base"], cells)
    came = [row for row in numbers.get("history") or [] if "divergence" in row]
    blocks: list[Block] = [table]
    if came:
        before, after = came[-1].get("bare", came[0]["divergence"]), came[-1]["divergence"]
        blocks.append(
            Paragraph(
                f"Divergence from the sources' answers: {before:.3g} before, {after:.3g} after, nats per probe."
            )
        )
    return [Section("Where it came from", blocks)]


def _lead(config: Mapping[str, Any], merged: bool) -> str:
    if merged:
        return "The base of the recipe before, the merged model after, on the same texts."
    return f"{config.get('target', 'The target')} without its adapter before, and with it after, on the same texts."
