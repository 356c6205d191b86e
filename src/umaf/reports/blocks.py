"""What a section of a report can hold. Values only; `html.py` says how each looks.

Text is text: whatever a model wrote or a user named is escaped, never read as HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from umaf.evaluation.record import Record
from umaf.reports.bars import Measured


@dataclass(frozen=True)
class Signed:
    """A difference: written with its sign, and without the small ruler from 0 to 1.

    Example:
        >>> Signed(-0.1, -0.2, 0.0).low
        -0.2
    """

    value: float | None
    low: float | None
    high: float | None


Cell = str | int | float | Measured | Signed | None
"""A table's cell: text, a number, a number with its interval, or None for "not measured"."""


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text.

    Example:
        >>> Paragraph("Two capabilities were moved.").text
        'Two capabilities were moved.'
    """

    text: str


@dataclass(frozen=True)
class Tile:
    """One headline number: a label, the number (or a word), and a short note under it.

    Example:
        >>> Tile("Recovery", 0.81, note="of the oracle's gain").label
        'Recovery'
    """

    label: str
    value: Cell
    note: str = ""


@dataclass(frozen=True)
class Tiles:
    """Headline numbers in a row.

    Example:
        >>> len(Tiles([Tile("Models", 3)]).tiles)
        1
    """

    tiles: Sequence[Tile]


@dataclass(frozen=True)
class Table:
    """A table; the first column names the row, numbers come with their intervals.

    Attributes:
        caption: what the table shows.
        columns: headings, the first for the row's name.
        rows: cells, as many per row as there are columns.
        note: small print under the table.

    Example:
        >>> Table("Accuracy", ["task", "bare"], [["tense", 0.5]]).rows
        [['tense', 0.5]]
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure with its caption, and the words for who cannot see it.

    Attributes:
        figure: a matplotlib figure.
        caption: what to read from it.
        alt: what it shows, in a sentence.
        name: of its files, where it is written to a folder; made of its place in the page where it has none.

    Example:
        >>> Picture(Figure(), caption="Alike", alt="A heatmap of two models.").alt
        'A heatmap of two models.'
    """

    figure: Figure
    caption: str
    alt: str
    name: str = ""


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side where there is room, one under the other on a phone.

    Example:
        >>> Gallery([]).pictures
        []
    """

    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Sample:
    """What a model was given, and what it wrote without and with the adapter.

    Example:
        >>> Sample("The film was", " long.", " wonderful.").after
        ' wonderful.'
    """

    prompt: str
    before: str
    after: str
    note: str = ""


@dataclass(frozen=True)
class Samples:
    """Texts before and after, side by side.

    Example:
        >>> Samples([Sample("a", "b", "c")]).before
        'without the adapter'
    """

    samples: Sequence[Sample]
    before: str = "without the adapter"
    after: str = "with the adapter"


@dataclass(frozen=True)
class Command:
    """A command line, or several, to copy.

    Example:
        >>> Command("umaf quickstart").text
        'umaf quickstart'
    """

    text: str
    note: str = ""


@dataclass(frozen=True)
class Provenance:
    """Where the numbers come from: a record, and files that lie beside the page.

    Attributes:
        record: the record of the run.
        files: what each file beside the page holds, by its name.

    Example:
        >>> from umaf.evaluation.record import new_record
        >>> Provenance(new_record("transfer", config={}, numbers={})).record.kind
        'transfer'
    """

    record: Record
    files: Mapping[str, str] = field(default_factory=dict)


Block = Paragraph | Tiles | Table | Picture | Gallery | Samples | Command | Provenance


@dataclass(frozen=True)
class Section:
    """A part of a report: a title, what it holds, and a sentence that leads into it.

    Example:
        >>> Section("How much arrived", [Paragraph("Most of it.")]).lead
        ''
    """

    title: str
    blocks: Sequence[Block]
    lead: str = ""
