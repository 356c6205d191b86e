"""The page, word for word. To accept a change: UMAF_REWRITE_GOLDEN=1 pytest tests/golden, then read the diff."""

from __future__ import annotations

import os
from pathlib import Path

from umaf.evaluation.provenance import Commit, Machine
from umaf.evaluation.record import Record
from umaf.evaluation.statistics import Interval
from umaf.reports.blocks import Command, Paragraph, Provenance, Sample, Samples, Section, Table, Tile, Tiles
from umaf.reports.html import write_report

GOLDEN = Path(__file__).parent / "report.html"

RECORD = Record(
    kind="transfer",
    config={"rank": 8, "route": "solve", "target": "llama-5m"},
    seed=0,
    versions={"python": "3.11.7", "umaf": "0.1.0", "torch": "2.13.0", "peft": None},
    machine=Machine(cores=2, cpu="A processor", memory_gib=8.0),
    commit=Commit(hash="0123456789abcdef0123456789abcdef01234567", dirty=True),
    started="2026-01-02T03:04:05+00:00",
    numbers={"sentiment": {"bare": 0.5, "solve": 0.84}},
)


def test_report_page(tmp_path: Path):
    bare, solve = Interval(0.5, 0.43, 0.57, 200), Interval(0.84, 0.79, 0.89, 200)
    sections = [
        Section("In short", [Tiles([Tile("Accuracy", solve, "was 0.50"), Tile("Time", "1 min 40 s")])]),
        Section(
            "How much arrived",
            [
                Table(
                    "Accuracy",
                    ["capability", "bare", "solve"],
                    [["sentiment", bare, solve], ["topic", None, 0.5]],
                )
            ],
            lead="On held-out texts.",
        ),
        Section("Texts", [Samples([Sample("The soup was", " the the", " cold & <bad>.")])]),
        Section(
            "Again", [Command("umaf quickstart"), Paragraph("Same seed, same page."), Provenance(RECORD)]
        ),
    ]
    page = write_report(tmp_path / "report.html", title="A title", lead="A lead.", sections=sections)
    if os.environ.get("UMAF_REWRITE_GOLDEN"):
        GOLDEN.write_bytes(page.read_bytes())
    assert page.read_text(encoding="utf-8") == GOLDEN.read_text(encoding="utf-8")
