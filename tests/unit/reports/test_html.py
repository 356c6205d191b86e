from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from umaf.errors import ConfigError, OutputError
from umaf.evaluation.record import new_record
from umaf.evaluation.statistics import Interval
from umaf.reports.blocks import (
    Command,
    Gallery,
    Paragraph,
    Picture,
    Provenance,
    Sample,
    Samples,
    Section,
    Table,
    Tile,
    Tiles,
)
from umaf.reports.figures import recovery_bars, similarity_heatmap
from umaf.reports.html import cell, ruler, write_report

EVIL = "<script>alert('x')</script><img src=http://example.org/a.png>"
VOID = {"meta", "link", "br", "img", "hr", "input", "path", "use"}


class Page(HTMLParser):
    """Reads a page strictly: every element closed in its order, every address noted."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in {tag}"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def _sections() -> list[Section]:
    scores = {EVIL: {"bare": Interval(0.5, 0.4, 0.6, 90), "oracle": Interval(0.9, 0.8, 0.95, 90)}}
    heat = similarity_heatmap([[1, 0.3], [0.3, 1]], ["BERT", EVIL])
    record = new_record("transfer", config={"name": EVIL}, numbers={"a": 0.5})
    return [
        Section(
            "In short", [Tiles([Tile("Recovery", Interval(0.8, 0.7, 0.9, 90), EVIL), Tile("Time", "2 min")])]
        ),
        Section(
            "How much arrived",
            [
                Picture(recovery_bars(scores), caption=EVIL, alt="Two bars."),
                Table(
                    "Accuracy",
                    ["task", "bare", "none"],
                    [[EVIL, Interval(0.5, 0.4, 0.6, 90), None]],
                    note=EVIL,
                ),
                Gallery([Picture(heat, caption="One", alt=EVIL), Picture(heat, caption="Two", alt="Again.")]),
            ],
            lead=EVIL,
        ),
        Section("Texts", [Samples([Sample(EVIL, EVIL, " " + EVIL, note=EVIL)])]),
        Section(
            "Again",
            [Command(EVIL, note="n"), Paragraph(EVIL), Provenance(record, files={"record.json": EVIL})],
        ),
    ]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = write_report(
        tmp_path_factory.mktemp("report") / "new" / "report.html", title=EVIL, lead=EVIL, sections=_sections()
    )
    return path.read_text(encoding="utf-8")


def test_the_page_is_well_formed_with_every_section(text: str):
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>") and page.all("html")[0]["lang"] == "en"
    assert len(page.all("main")) == 1 and len(page.all("h1")) == 1
    assert [
        word for word in ("In short", "How much arrived", "Texts", "Again") if word not in page.words
    ] == []
    assert len(page.all("section")) == 4


def test_the_page_asks_nothing_of_any_network(text: str):
    page = Page(text)
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
    assert page.all("link") == page.all("script") == page.all("img") == page.all("iframe") == []
    style = re.findall(r"<style>(.*?)</style>", text, flags=re.DOTALL)
    assert len(style) == 1 and "url(" not in style[0] and "@import" not in style[0]
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy is not None and policy.startswith("default-src 'none'")


def test_text_stays_text(text: str):
    assert "<script" not in text and "<img" not in text
    # Figures shorten long names; everywhere else the whole text is there.
    assert Page(text).words.count(EVIL) >= 8


def test_ids_are_unique_and_links_lead_somewhere(text: str):
    page = Page(text)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for attributes in page.all("a") + page.all("use"):
        assert (attributes["href"] or "")[1:] in ids


def test_pictures_have_words(text: str):
    page = Page(text)
    drawings = [attributes for attributes in page.all("div") if attributes.get("role") == "img"]
    assert [one["aria-label"] for one in drawings] == ["Two bars.", EVIL, "Again."]
    assert len(page.all("figcaption")) == 3
    assert all(name in text for name in ("prefers-color-scheme", "viewport", "color-scheme"))


def test_tables_have_headings_and_intervals(text: str):
    page = Page(text)
    assert [one.get("scope") for one in page.all("th")] == ["col", "col", "col", "row"]
    assert "0.40 to 0.60" in page.words and "–" in page.words
    assert [one["data-label"] for one in page.all("td")] == ["bare", "none"]


def test_cells():
    assert cell(0.125) == ("0.12", "") and cell(12345) == ("12\u202f345", "")
    assert cell(float("nan")) == ("–", "") and cell("") == ("–", "")
    assert cell(Interval(0.5, float("nan"), float("nan"), 1)) == ("0.50", "")
    assert ruler(Interval(1.05, 0.9, 1.2, 9)) == (90.0, 100.0, 100.0)
    assert ruler(Interval(20.0, 10.0, 30.0, 9)) is None and ruler(0.5) is None
    assert ruler(Interval(0.5, float("nan"), 0.6, 9)) is None


def test_half_a_character_does_not_stop_the_page(tmp_path: Path):
    sections = [Section("a", [Paragraph("\ud83d cut")])]
    path = write_report(tmp_path / "r.html", title="t", lead="l", sections=sections)
    assert "? cut" in path.read_text(encoding="utf-8")


def test_what_cannot_be_reported_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="no section"):
        write_report(tmp_path / "r.html", title="t", lead="l", sections=[])
    crooked = Section("a", [Table("crooked", ["a", "b"], [["x"]])])
    with pytest.raises(ConfigError, match="crooked"):
        write_report(tmp_path / "r.html", title="t", lead="l", sections=[crooked])
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_report(tmp_path / "file" / "r.html", title="t", lead="l", sections=[Section("a", [])])
