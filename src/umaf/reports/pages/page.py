"""Records of any kind to one page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from umaf.errors import ConfigError
from umaf.reports.blocks import Gallery, Paragraph, Picture, Section
from umaf.reports.html import write_report
from umaf.reports.known import WORDS, Found, find_records
from umaf.reports.pages.benchmark import benchmark, summary
from umaf.reports.pages.evaluation import change, evaluation
from umaf.reports.pages.first_run import quickstart
from umaf.reports.pages.jobs import expert, monitor
from umaf.reports.pages.prints import fingerprints
from umaf.reports.pages.weights import adapter, difference, merge
from umaf.reports.save import save_figure

PAGES: dict[str, Callable[[Found], list[Section]]] = {
    "quickstart": quickstart,
    "transfer": change,
    "merged": change,
    "evaluate": evaluation,
    "measured": benchmark,
    "summary": summary,
    "merge": merge,
    "adapter": adapter,
    "diff": difference,
    "monitor": monitor,
    "expert": expert,
}
"""How each kind is told of, but for fingerprints, which are told of together."""


def report(
    places: Sequence[str | Path], out: str | Path, *, title: str | None = None, figures: Path | None = None
) -> tuple[Path, list[Found]]:
    """Write one page about records of any kind.

    Args:
        places: files, or folders with records in them.
        out: the page to write, replaced where it exists.
        title: of the page; made of what was found when not given.
        figures: a folder for every drawing as PNG and SVG.

    Returns:
        The page, and the files that were of no known kind; the page names those too.

    Raises:
        ConfigError: a place is not there, nothing in it is known, or a record is damaged.
        OutputError: the page or a drawing cannot be written.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "summary.json").write_text('{"a": {"value": 1, "low": 0, "high": 2, "n": 3, "aim": 1}}')
        >>> page, unknown = report([folder], folder / "report.html")
        >>> page.name, unknown
        ('report.html', [])
    """
    found = find_records([Path(place) for place in places])
    unknown = [one for one in found if one.kind == "unknown"]
    known = [one for one in found if one.kind != "unknown"]
    if not known:
        raise ConfigError(
            f"A report was asked of {', '.join(str(one.path) for one in unknown)}, but that is no record this version "
            f"knows ({unknown[0].why}); it knows {', '.join(WORDS.values())}."
        )
    sections = sections_of(found)
    page = write_report(out, title=title or _title(known), lead=_lead(known), sections=sections)
    if figures is not None:
        for name, picture in _named(sections):
            save_figure(picture.figure, figures, name)
    return page, unknown


def sections_of(found: Sequence[Found]) -> list[Section]:
    """Give the sections of a page; where there are several records, each section names its own.

    Args:
        found: what `find_records` gave.

    Returns:
        Sections in the order of the records, fingerprints after them, unknown files last.
    """
    singles = [one for one in _once(found) if one.kind in PAGES]
    prints = [one for one in found if one.kind == "fingerprint"]
    sections: list[Section] = []
    told: set[Path] = set()
    for one in singles:
        if one.kind == "monitor":
            run = one.path.resolve().parent
            if run in told:
                continue
            told.add(run)
        own = PAGES[one.kind](one)
        many = len(singles) + bool(prints) > 1
        sections += [replace(each, title=f"{each.title} · {one.name}") if many else each for each in own]
    if prints:
        sections += fingerprints(prints)
    unknown = [one for one in found if one.kind == "unknown"]
    if unknown:
        texts = [Paragraph(f"{one.path.name} is no record this version knows: {one.why}.") for one in unknown]
        known = f"Known are {', '.join(WORDS.values())}."
        sections.append(Section("Not understood", [*texts, Paragraph(known)]))
    return sections


def _once(found: Sequence[Found]) -> list[Found]:
    """Leave out a record's figures where the same ones are there as a summary."""
    dated = [one.data["numbers"].get("figures") for one in found if one.kind == "measured"]
    return [one for one in found if one.kind != "summary" or dict(one.data) not in dated]


def _title(found: Sequence[Found]) -> str:
    """Name a page after its record, or after what it has most of."""
    kinds = list(dict.fromkeys(one.kind for one in found))
    words = {
        "quickstart": "A capability moved between architectures",
        "transfer": "What a transfer brought and cost",
        "merged": "What a merge brought and cost",
        "evaluate": "What models can do",
        "measured": "What was measured",
        "summary": "What was measured",
        "merge": "How a model was merged",
        "adapter": "Where an adapter comes from",
        "diff": "What changed between two checkpoints",
        "monitor": "The numbers of a job",
        "expert": "An expert, and how it learned",
        "fingerprint": "What fingerprints say",
    }
    first = words[kinds[0]]
    name = found[0].name.replace("_", " ")
    return f"{first}: {name}" if len(found) == 1 or len(kinds) == 1 else first


def _lead(found: Sequence[Found]) -> str:
    kinds = [one.kind for one in found]
    told = [
        f"{kinds.count(kind)} × {WORDS[kind]}" if kinds.count(kind) > 1 else WORDS[kind]
        for kind in dict.fromkeys(kinds)
    ]
    return f"This page tells of {', '.join(told)}."


def _named(sections: Sequence[Section]) -> Iterator[tuple[str, Picture]]:
    """Give every drawing a file name of its own."""
    taken: set[str] = set()
    for number, section in enumerate(sections, start=1):
        for block in section.blocks:
            pictures = block.pictures if isinstance(block, Gallery) else [block]
            for picture in (one for one in pictures if isinstance(one, Picture)):
                stem = (
                    re.sub(r"[^a-z0-9]+", "-", (picture.name or picture.alt[:40]).lower()).strip("-")
                    or "figure"
                )
                name = stem if stem not in taken else f"{stem}-{number}"
                while name in taken:
                    name += "-b"
                taken.add(name)
                yield name, picture
