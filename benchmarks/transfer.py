"""Transfer in one pass, measured: what a generated adapter is worth on capabilities that nobody trained on.

    python -m benchmarks.transfer [--workers 2] [--minutes 120] [--only-summary]

First the universal space's material and one generator per target are made, where they are missing; then cells (a pair
of models, a held-out capability, a seed) are measured by workers and kept. An interrupted run goes on where it stopped,
as long as the code is the same. At the end everything measured becomes a dated record and
comparison/transfer/summary.json.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

from benchmarks.plan import where
from benchmarks.transfer_plan import PAIRS
from benchmarks.workers import share
from umaf.files import hash_texts

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
    asked = parser.parse_args()
    home, run = cache(), datetime.now(timezone.utc).isoformat()
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


def prepare(home: Path) -> None:
    """Make the material and the generators by the commands that users have."""
    if not (home / "material.safetensors").exists():
        _run("zoo.material", "texts", "--out", str(home))
    for target in dict.fromkeys(target for _, target in PAIRS):
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
