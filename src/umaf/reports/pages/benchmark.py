"""Headline figures of a benchmark, and its dated records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from umaf.errors import ConfigError
from umaf.evaluation.statistics import Interval, mean_interval
from umaf.evaluation.summary import Figure
from umaf.reports.bars import number
from umaf.reports.blocks import Block, Cell, Gallery, Paragraph, Picture, Section, Table, Tile, Tiles
from umaf.reports.forest import MOST, aim_of, forest, met
from umaf.reports.known import Found
from umaf.reports.pages.parts import again, record_of
from umaf.reports.pareto import Offer, pareto_front

_LEAST_OFFERS = 3


def summary(found: Found) -> list[Section]:
    """Tell of a `summary.json`."""
    return [_figures(found.data, found)]


def benchmark(found: Found) -> list[Section]:
    """Tell of a dated record, whatever was measured: its figures, its fronts, and its settings."""
    record = record_of(found)
    parts = []
    figures = record.numbers.get("figures")
    if isinstance(figures, Mapping) and figures:
        parts.append(_figures(figures, found))
    fronts = [picture for name, offers in _fronts(record.numbers) if (picture := _front(name, offers))]
    if fronts:
        parts.append(
            Section(
                "Score against cost",
                [Gallery(fronts)],
                lead="What lies on the line is beaten by nothing cheaper.",
            )
        )
    if not parts:
        text = (
            f'A record of "{record.kind}" with {", ".join(record.numbers) or "no numbers"}. It has no headline figures '
            "to draw; all its numbers are below."
        )
        parts.append(Section("What was measured", [Paragraph(text)]))
    return [*parts, again(found, f"make bench-{record.kind}", note="In a checkout of umaf.")]


def _figures(data: Mapping[str, Any], found: Found) -> Section:
    try:
        figures = {name: Figure(**row) for name, row in data.items()}
    except TypeError as problem:
        raise ConfigError(
            f"The figures of {found.path} were asked for, but they are not {{value, low, high, n, aim}} ({problem}); "
            "make them again."
        ) from problem
    reached = [met(one) for one in figures.values()]
    aimed = [one for one in reached if one is not None]
    tiles = [Tile("Figures", len(figures))]
    if aimed:
        tiles.append(Tile("Aims reached", f"{sum(aimed)} of {len(aimed)}"))
    blocks: list[Block] = [Tiles(tiles)]
    pictures = [*_pictures(figures)]
    if pictures:
        blocks.append(Gallery(pictures))
    cells: list[list[Cell]] = []
    for name, one in figures.items():
        reach = {True: "reached", False: "missed", None: None}[met(one)]
        cells.append([name, one, one.n or None, None if one.aim is None else str(one.aim), reach])
    blocks.append(Table("All figures", ["figure", "value", "n", "aim", "result"], cells))
    return Section("Figures", blocks, lead="Values with 95 % intervals, as they were measured.")


def _pictures(figures: Mapping[str, Figure]) -> Iterator[Picture]:
    """One drawing for each family of names that are measured alike."""
    families: dict[str, dict[str, Figure]] = {}
    shown = {name: one for name, one in figures.items() if math.isfinite(number(one.value))}
    for name, one in shown.items():
        family, rest = _family(name, shown)
        families.setdefault(family, {})[rest] = one
    for family, members in families.items():
        aims = [aim[1] for one in members.values() if (aim := aim_of(one.aim))]
        sizes = [abs(number(one.value)) for one in members.values()] + [abs(aim) for aim in aims]
        # Numbers of different orders on one axis show nothing.
        if len(members) < 2 or max(sizes) > 50 * max(1e-9, sorted(sizes)[len(sizes) // 2]):
            continue
        names = list(members)
        for start in range(0, len(names), MOST):
            part = {name: members[name] for name in names[start : start + MOST]}
            more = "" if len(names) <= MOST else f", {start // MOST + 1}"
            yield Picture(
                forest(part, title=f"{family.replace('_', ' ')}{more}"),
                caption="Dots are values, lines 95 % intervals, upright marks what was aimed at; orange missed it.",
                alt=f"Values and intervals of {', '.join(part)}.",
                name=f"figures-{family}{start or ''}",
            )


def _family(name: str, names: Iterable[str]) -> tuple[str, str]:
    """Part a name into its family and the rest: by its first word, and by its last where many end so (a model's name).

    Example:
        >>> names = [f"average.{method}.{base}" for method in "abcdefg" for base in ("one", "two")]
        >>> _family("average.a.one", names), _family("recovery.solve", ["recovery.solve"])
        (('average, one', 'a'), ('recovery', 'solve'))
    """
    first, *rest = name.split(".")
    if not rest:
        return first, first
    alike = [other.split(".") for other in names if other.startswith(f"{first}.")]
    ends = {each[-1] for each in alike}
    if len(rest) > 1 and 2 <= len(ends) <= 4 and len(alike) >= 6 * len(ends):
        return f"{first}, {rest[-1]}", ".".join(rest[:-1])
    return first, ".".join(rest)


def _fronts(numbers: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Offer]]]:
    """Find things with a score and a cost: methods of one base, or routes of many cells."""
    for name, runs in _grouped(numbers.get("results")).items():
        offers = {}
        for method in dict.fromkeys(key for run in runs for key in run):
            mine = [run[method] for run in runs if isinstance(run.get(method), Mapping)]
            scores = [_mean(one.get("scores")) for one in mine]
            costs = [one.get("cpu", one.get("wall")) for one in mine]
            offers |= _offer(method, scores, costs)
        yield f"{name}, by method", offers
    cells = numbers.get("cells")
    if isinstance(cells, Sequence):
        routes: dict[str, list[tuple[Any, Any]]] = {}
        for cell in (one for one in cells if isinstance(one, Mapping)):
            for route, value in (cell.get("scores") or {}).items():
                routes.setdefault(route, []).append((value, (cell.get("cpu") or {}).get(route)))
        offers = {}
        for route, pairs in routes.items():
            offers |= _offer(route, [pair[0] for pair in pairs], [pair[1] for pair in pairs])
        yield "All cells, by route", offers


def _grouped(results: Any) -> dict[str, list[Mapping[str, Any]]]:
    """Put runs "base--seed" of one base together."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for name, methods in results.items() if isinstance(results, Mapping) else ():
        if isinstance(methods, Mapping):
            groups.setdefault(str(name).split("--")[0], []).append(methods)
    return groups


def _mean(scores: Any) -> float | None:
    values = (
        [one for one in scores.values() if isinstance(one, int | float)]
        if isinstance(scores, Mapping)
        else []
    )
    return sum(values) / len(values) if values else None


def _offer(name: str, scores: Sequence[Any], costs: Sequence[Any]) -> dict[str, Offer]:
    pairs = [
        (float(score), float(cost))
        for score, cost in zip(scores, costs, strict=True)
        if isinstance(score, int | float) and isinstance(cost, int | float)
    ]
    if not pairs:
        return {}
    found = mean_interval([score for score, _ in pairs])
    cost = sum(cost for _, cost in pairs) / len(pairs)
    return {name: Offer(cost, Interval(found.value, found.low, found.high, found.n))}


def _front(name: str, offers: Mapping[str, Offer]) -> Picture | None:
    if len(offers) < _LEAST_OFFERS:
        return None
    figure = pareto_front(offers, title=name, cost="seconds of processor time", score="mean score")
    return Picture(
        figure,
        caption=f"{len(offers)} ways; intervals over runs. Those on the line are beaten by nothing that costs less.",
        alt=f"Mean score against processor time of {', '.join(list(offers)[:12])}.",
        name=f"front-{name}",
    )
