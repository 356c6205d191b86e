"""First light, measured: does a capability arrive in a model of another architecture?

    python -m benchmarks.first_light [--workers 2] [--minutes 120] [--only-summary]

Cells (a capability, a pair of models, a seed) are measured by workers, one thread each, and kept; an interrupted run
goes on where it stopped, as long as the code is the same. At the end everything measured so far becomes a dated
record and comparison/first-light/summary.json.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
import traceback
from datetime import datetime, timezone
from pathlib import Path

from umaf.files import hash_texts, write_json

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
        (home / "cells").mkdir(parents=True, exist_ok=True)
        for stale in home.glob("*.taken"):
            stale.unlink()
        os.environ["OMP_NUM_THREADS"] = "1"
        until = time.monotonic() + 60 * asked.minutes
        context = multiprocessing.get_context("spawn")
        workers = [context.Process(target=work, args=(until, home, run)) for _ in range(asked.workers)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    from benchmarks.first_light_summary import summarise

    summarise(home / "cells")


def cache() -> Path:
    """Give the folder for results of the code as it is now."""
    files = sorted(path for pattern in SOURCES for path in ROOT.glob(pattern))
    return ROOT / "out" / "first-light" / hash_texts(path.read_text(encoding="utf-8") for path in files)[:12]


def work(until: float, home: Path, run: str) -> None:
    """Take pairs of models nobody has taken, and measure their missing cells."""
    import torch

    from benchmarks.cells import measure
    from benchmarks.plan import groups
    from umaf.evaluation.provenance import commit

    torch.set_num_threads(1)
    for number, group in enumerate(groups()):
        missing = [cell for cell in group if not (home / "cells" / f"{cell.name}.json").exists()]
        if not missing or time.monotonic() > until or not _take(home / f"{number}.taken"):
            continue
        for cell in missing:
            if time.monotonic() > until:
                break
            began = time.perf_counter()
            try:
                result = measure(cell, home, run)
            except Exception:
                # One cell that cannot be measured must not cost the others; the record tells how many are missing.
                traceback.print_exc()
                continue
            found = commit()
            made_by = found.model_dump() if found else None
            write_json(
                home / "cells" / f"{cell.name}.json", {"cell": vars(cell), "commit": made_by, **result}
            )
            print(f"{cell.name}: {time.perf_counter() - began:.0f} s", flush=True)


def _take(path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


if __name__ == "__main__":
    main()
