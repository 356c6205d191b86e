"""Transfer in one pass, measured: what a generated adapter is worth on capabilities that nobody trained on.

    python -m benchmarks.transfer [--workers 2] [--minutes 120] [--only-summary] [--take RECORD]

First the universal space's material and one generator per target are made, where they are missing; then cells (a pair
of models, a held-out capability, a seed) are measured by workers and kept. An interrupted run goes on where it stopped,
as long as the code is the same. At the end everything measured becomes a dated record and
comparison/transfer/summary.json. With `--take` the cells of an earlier record count as measured, for where they were
measured is gone: give one whose code made the same adapters.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from benchmarks.plan import Cell, where
from benchmarks.transfer_plan import PAIRS
from benchmarks.workers import share
from umaf.files import hash_texts, write_json

ROOT = Path(__file__).resolve().parents[1]
# What the numbers depend on; the cache has a folder per state of it, so that no two states mix.
SOURCES = (
    "benchmarks/making.py",
    "benchmarks/transfer_*.py",
    "zoo/experts.py",
    "zoo/material.py",
    "zoo/space/*.safetensors",
    "src/umaf/adapters/*.py",
    "src/umaf/extraction/*.py",
    "src/umaf/generation/*.py",
    "src/umaf/readout/*.py",
    "src/umaf/tasks/*.py",
    "src/umaf/training/*.py",
    "zoo/models/*/config.json",
    "constraints.txt",
)
STEPS = {"llama-1m": 500, "bert-1m": 300, "gpt2-1m": 300, "minilm": 40}
"""Steps of a generator's training; 150 for the others."""
LARGE = ("capabilities=1", "shown=64", "texts=16")


def main() -> None:
    """Make and measure what is missing, then write record and summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=240.0, help="begin no new cell after this long")
    parser.add_argument("--only-summary", action="store_true")
    parser.add_argument(
        "--take", type=Path, metavar="RECORD", help="cells of an earlier record, kept as they are"
    )
    asked = parser.parse_args()
    home, run = cache(), datetime.now(timezone.utc).isoformat()
    if asked.take:
        take(home, asked.take)
    if not asked.only_summary:
        began = time.monotonic()
        prepare(home)
        left = asked.minutes - (time.monotonic() - began) / 60
        share(home, run, asked.workers, left, ("benchmarks.transfer_cells", "benchmarks.transfer_plan"))
    from benchmarks.transfer_summary import summarise

    summarise(home)


def cache() -> Path:
    """Give the folder for results of the code as it is now."""
    files = sorted(path for pattern in SOURCES for path in ROOT.glob(pattern))
    return ROOT / "out" / "transfer" / hash_texts(path.read_bytes().hex() for path in files)[:12]


def take(home: Path, record: Path) -> None:
    """Put the cells of an earlier record, and its train capabilities, among the measured ones; keep what was taken."""
    numbers = json.loads(record.read_text(encoding="utf-8"))["numbers"]
    file = home / "taken.json"
    known = json.loads(file.read_text()) if file.exists() else {"records": {}, "figures": {}}
    (home / "cells").mkdir(parents=True, exist_ok=True)
    new = 0
    for cell in numbers["cells"]:
        place = home / "cells" / f"{Cell(**cell['cell']).name}.json"
        if not place.exists():
            write_json(place, {"record": record.stem, **cell})
            new += 1
    if not (home / "train.json").exists():
        write_json(home / "train.json", numbers["train"])
    counts = {**known["records"], record.stem: known["records"].get(record.stem, 0) + new}
    write_json(file, {"records": counts, "figures": {**numbers["figures"], **known["figures"]}})


def prepare(home: Path, targets: Sequence[str] = tuple(dict.fromkeys(target for _, target in PAIRS))) -> None:
    """Make the material and the generators by the commands that users have."""
    if not (home / "material.safetensors").exists():
        _run("zoo.material", "texts", "--out", str(home))
    for target in targets:
        folder = home / "generators" / target
        if not folder.exists():
            more = [part for setting in LARGE for part in ("--set", setting)] if target == "minilm" else []
            steps = STEPS.get(target, 150)
            _run(
                "umaf", "train", "generator", "--target", where(target), "--bank", str(home), "--out", str(folder),
                "--steps", str(steps), "--set", "look_every=100", "--set", "keep_every=50", *more,
            )  # fmt: skip


def _run(*words: str) -> None:
    subprocess.run([sys.executable, "-m", *words], check=True)


if __name__ == "__main__":
    main()
