"""One self-contained HTML page: it opens from a disk, a mail or a web server, and asks nothing of any network.

The page's own security policy forbids requests and scripts, so that this holds even for a text
that tries to bring some along.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from importlib.resources import files
from itertools import count
from pathlib import Path

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from umaf.errors import ConfigError
from umaf.evaluation.record import Record
from umaf.files import write_text
from umaf.reports.bars import number
from umaf.reports.blocks import Cell, Section, Signed, Table
from umaf.reports.save import inline_svg


def write_report(path: str | Path, *, title: str, lead: str, sections: Sequence[Section]) -> Path:
    """Write a report as one HTML page.

    Args:
        path: the file to write; whole or not there, replaced where it exists.
        title: of the page.
        lead: one to three sentences under the title: what was done, and what came out.
        sections: the page's parts, in order.

    Returns:
        The path.

    Raises:
        ConfigError: there is no section, or a table's row does not fit its columns.
        OutputError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> from umaf.reports.blocks import Paragraph
        >>> parts = [Section("Result", [Paragraph("It arrived.")])]
        >>> write_report(Path(tempfile.mkdtemp()) / "report.html", title="A", lead="B", sections=parts).name
        'report.html'
    """
    _check(sections)
    folder = files("umaf.reports")
    environment = Environment(
        loader=DictLoader({"page": folder.joinpath("template.html.j2").read_text(encoding="utf-8")}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    numbers = count(1)
    page = environment.get_template("page").render(
        title=title,
        lead=lead,
        sections=[(f"part-{i + 1}", section) for i, section in enumerate(sections)],
        css=Markup(folder.joinpath("report.css").read_text(encoding="utf-8")),
        kind=lambda block: type(block).__name__,
        cell=cell,
        ruler=ruler,
        wordy=wordy,
        facts=facts,
        pretty=lambda data: json.dumps(data, indent=2, ensure_ascii=False),
        # matplotlib escapes the text it draws; see inline_svg.
        drawing=lambda figure: Markup(inline_svg(figure, prefix=f"f{next(numbers)}")),
        width=lambda figure: round(figure.get_figwidth() * 96 * 1.22),
    )
    # A model can write half a character; a page has to be whole ones.
    return write_text(path, page.encode("utf-8", "replace").decode("utf-8"))


def cell(value: Cell) -> tuple[str, str]:
    """Write a cell as its main text and its interval's text ("" where there is none).

    Args:
        value: text, a number, a number with an interval, or None.

    Returns:
        What is printed large, and what is printed small.

    Example:
        >>> from umaf.evaluation.statistics import Interval
        >>> cell(Interval(0.825, 0.7, 0.91, 40))
        ('0.82', '0.70 to 0.91')
        >>> cell(None)
        ('–', '')
    """
    if value is None or isinstance(value, str):
        return value or "–", ""
    if isinstance(value, bool | int):
        return f"{value:,}".replace(",", "\u202f"), ""
    if isinstance(value, float):
        return (_two(value) if math.isfinite(value) else "–"), ""
    middle, low, high = number(value.value), number(value.low), number(value.high)
    if not math.isfinite(middle):
        return "–", ""
    if isinstance(value, Signed):
        known = math.isfinite(low) and math.isfinite(high)
        return _sign(middle), f"{_sign(low)} to {_sign(high)}" if known else ""
    interval = f"{_two(low)} to {_two(high)}" if math.isfinite(low) and math.isfinite(high) else ""
    return _two(middle), interval


def _sign(value: float) -> str:
    text = f"{value:+.2f}"
    return "0.00" if text in ("-0.00", "+0.00") else text.replace("-", "−")


def _two(value: float) -> str:
    """Write a number with two digits; nothing is "-0.00"."""
    text = f"{value:.2f}"
    return "0.00" if text == "-0.00" else text


def wordy(table: Table, column: int) -> bool:
    """Say whether a column holds words, which stand on the left, rather than numbers, some of them written out.

    Example:
        >>> table = Table("", ["a", "b", "c"], [["x", "up", "1.5e-3"], ["y", None, "+0.20 *"]])
        >>> wordy(table, 1), wordy(table, 2)
        (True, False)
    """
    texts = [row[column] for row in table.rows if isinstance(row[column], str) and row[column]]
    return any(not re.fullmatch(r"[+\-−]?(inf|[\d.,]+(e[+-]?\d+)?)\s*[%s*]?", str(text)) for text in texts)


def ruler(value: Cell) -> tuple[float, float, float] | None:
    """Give an interval's ends and middle as percent of a small ruler from 0 to 1; None off it.

    Args:
        value: a table's cell.

    Returns:
        Low, value and high in percent, or None where there is no interval near 0 to 1.

    Example:
        >>> from umaf.evaluation.statistics import Interval
        >>> ruler(Interval(0.5, 0.25, 0.75, 40))
        (25.0, 50.0, 75.0)
    """
    if value is None or isinstance(value, str | int | float | Signed):
        return None
    ends = [number(value.low), number(value.value), number(value.high)]
    # Recovery can lie a little outside; its ruler is cut off there. Seconds or bits get none.
    if not all(-0.5 <= end <= 1.5 for end in ends):
        return None
    low, middle, high = (round(100 * min(max(end, 0.0), 1.0), 1) for end in ends)
    return low, middle, high


def facts(record: Record) -> list[tuple[str, str]]:
    """List what a reader wants to know of a record, as pairs of a word and its text.

    Example:
        >>> from umaf.evaluation.record import new_record
        >>> facts(new_record("transfer", config={}, numbers={}))[0]
        ('Kind', 'transfer')
    """
    commit = "not run from a checkout"
    if record.commit:
        commit = record.commit.hash[:12] + (" with changes" if record.commit.dirty else "")
    memory = f", {record.machine.memory_gib:g} GiB" if record.machine.memory_gib else ""
    cores = f"{record.machine.cores} core{'s' if record.machine.cores != 1 else ''}"
    return [
        ("Kind", record.kind),
        ("Started", record.started.replace("T", " ").replace("+00:00", " UTC")),
        ("Seed", str(record.seed)),
        ("Commit", commit),
        ("Machine", f"{record.machine.cpu}, {cores}{memory}"),
        ("Versions", ", ".join(f"{name} {number or 'missing'}" for name, number in record.versions.items())),
    ]


def _check(sections: Sequence[Section]) -> None:
    if not sections:
        raise ConfigError("Asked to write a report, found no section; pass at least one.")
    for section in sections:
        for block in section.blocks:
            if isinstance(block, Table) and any(len(row) != len(block.columns) for row in block.rows):
                raise ConfigError(
                    f'Table "{block.caption}" needs {len(block.columns)} cells in every row, got rows of '
                    f"{sorted({len(row) for row in block.rows})}; pass None for what was not measured."
                )
