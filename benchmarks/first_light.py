"""First light, measured: does a capability arrive in a model of another architecture?

    python -m benchmarks.first_light [--workers 2] [--minutes 120] [--only-summary]

Cells (a capability, a pair of models, a seed) are measured by workers, one thread each, and kept; an interrupted run
goes on where it stopped, as long as the code is the same. At the end everything measured so far becomes a dated
record and comparison/first-light/summary.json.
"""

from __future__ import annotations

import argparse
from datetime import datetime, timezone
from pathlib import Path

from benchmarks.workers import share
from umaf.files import hash_texts

ROOT = Path(__file__).resolve().parents[1]
# What a cell's numbers depend on; the cache has a folder per state of it, so that no two states mix.
SOURCES = (
    "benchmarks/*.py",
    "zoo/experts.py",
    "src/umaf/*/*.py",
    "zoo/models/*/config.json",
    "constraints.txt",
)


def main() -> None:
    """Measure what is missing, then write record and summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=240.0, help="begin no new cell after this long")
    parser.add_argument("--only-summary", action="store_true")
    asked = parser.parse_args()
    home, run = cache(), datetime.now(timezone.utc).isoformat()
    if not asked.only_summary:
        share(home, run, asked.workers, asked.minutes, ("benchmarks.cells", "benchmarks.plan"))
    from benchmarks.first_light_summary import summarise

    summarise(home / "cells")


def cache() -> Path:
    """Give the folder for results of the code as it is now."""
    files = sorted(path for pattern in SOURCES for path in ROOT.glob(pattern))
    return ROOT / "out" / "first-light" / hash_texts(path.read_text(encoding="utf-8") for path in files)[:12]


if __name__ == "__main__":
    main()
