"""`umaf diff`: what changed between two checkpoints, and where."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from umaf.cli.opening import PickleOption, stages
from umaf.cli.options import JsonOption
from umaf.errors import ConfigError

if TYPE_CHECKING:
    from umaf.deltas.difference import Change, Difference


def diff(
    first: Annotated[
        str, typer.Argument(metavar="A", help="A checkpoint, usually the base: a folder, a file, a hub id.")
    ],
    second: Annotated[str, typer.Argument(metavar="B", help="What is measured against it.")],
    top: Annotated[int, typer.Option(min=0, help="How many of the most changed tensors to print.")] = 10,
    figure: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw layers by modules: F.png, with F.svg beside it."),
    ] = None,
    allow_pickle: PickleOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what changed between two checkpoints of one architecture: by tensor, layer and kind of module."""
    from umaf.checkpoints import open_checkpoint
    from umaf.deltas.difference import difference

    if figure is not None and figure.suffix not in (".png", ".svg"):
        raise ConfigError(f"--figure was {str(figure)!r}, but figures are drawn as .png and .svg.")
    opened = [open_checkpoint(name, allow_pickle=allow_pickle) for name in (first, second)]
    with stages(quiet=as_json) as say:
        say(f"comparing {len(opened[0].entries)} tensors")
        found = difference(*opened)
    drawn = _draw(found, figure) if figure is not None else []
    if as_json:
        print(json.dumps({"first": first, "second": second, **as_data(found), "files": drawn}, indent=2))
        return
    _show(found, top)
    for file in drawn:
        print(file)


def as_data(found: Difference) -> dict[str, Any]:
    """Write a difference as JSON holds it: an infinite number becomes null."""

    def plain(change: Change) -> dict[str, Any]:
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(change).items()
        }

    return {
        "total": plain(found.total),
        **{key: [plain(one) for one in getattr(found, key)] for key in ("layers", "kinds", "tensors")},
        "only_first": list(found.only_first),
        "only_second": list(found.only_second),
        "reshaped": [
            {"name": name, "first": list(before), "second": list(after)}
            for name, before, after in found.reshaped
        ],
    }


def _draw(found: Difference, figure: Path) -> list[str]:
    from umaf.reports.change_map import change_map
    from umaf.reports.save import save_figure

    cells = {key: change.relative for key, change in found.cells.items()}
    drawn = change_map(cells, unit="norm of the change / norm before")
    return [str(path) for path in save_figure(drawn, figure.parent, figure.stem)]


def _show(found: Difference, top: int) -> None:
    console = Console()
    most = sorted(found.tensors, key=lambda change: -change.relative)[:top]
    for title, changes in (("layer", found.layers), ("module", found.kinds), ("most changed", most)):
        # Names are what is looked for: on a narrow terminal they go on in the next line.
        columns = [Column(title, overflow="fold"), "relative", "cosine", "entries changed", "largest"]
        table = Table(*columns, title_justify="left")
        for change in changes:
            table.add_row(escape(change.name), *_cells(change))
        if title == "layer":
            table.add_section()
            table.add_row("all", *_cells(found.total))
        if changes:
            console.print(table)
    for names, text in ((found.only_first, "first"), (found.only_second, "second")):
        if names:
            console.print(f"only in the {text}: {escape(_few(names))}", soft_wrap=True)
    for name, before, after in found.reshaped:
        console.print(
            f"not compared: {escape(name)} is {escape(str(list(before)))} and {escape(str(list(after)))}",
            soft_wrap=True,
        )


def _cells(change: Change) -> tuple[str, ...]:
    return (
        f"{change.relative:.3g}",
        f"{change.cosine:.6f}",
        f"{change.changed:.1%}",
        f"{change.largest:.3g}",
    )


def _few(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
