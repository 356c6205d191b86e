"""`umaf report`: one page of records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from umaf.cli.options import JsonOption


def report(
    record: Annotated[
        list[Path],
        typer.Argument(help="Records, fingerprints, a run's numbers, or folders with such files in them."),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="The page; replaced if it exists.")
    ] = Path("report.html"),
    figures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write every drawing there, as PNG and SVG.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Of the page; made of the records if not given.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make one page of records: what was done, tables, drawings with intervals, and how to do it again.

    The page holds everything it shows, and loads nothing from anywhere.
    """
    from umaf.reports.pages import report as write

    page, unknown = write(record, out, title=title, figures=figures)
    if as_json:
        names = {"page": str(page), "figures": None if figures is None else str(figures)}
        print(json.dumps({**names, "not_understood": [str(one.path) for one in unknown]}, indent=2))
        return
    errors = Console(stderr=True)
    for one in unknown:
        errors.print(
            f"{one.path} is no record this version knows: {one.why}.",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    console = Console()
    console.print(str(page), markup=False, highlight=False, soft_wrap=True)
    if figures is not None:
        console.print(str(figures), markup=False, highlight=False, soft_wrap=True)
