"""Workers that share the cells of a benchmark: one thread each, resumable, and one bad cell costs no other."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import time
import traceback
from pathlib import Path

from umaf.files import write_json


def share(home: Path, run: str, workers: int, minutes: float, parts: tuple[str, str]) -> None:
    """Measure the missing cells of a benchmark.

    Args:
        home: folder of the results; each lies in cells/NAME.json.
        run: name of this run; seconds of two runs do not compare.
        workers: processes.
        minutes: no new cell is begun after this long.
        parts: the modules that have ``measure(cell, home, run)`` and ``groups()``.
    """
    (home / "cells").mkdir(parents=True, exist_ok=True)
    for stale in home.glob("*.taken"):
        stale.unlink()
    os.environ["OMP_NUM_THREADS"] = "1"
    until = time.monotonic() + 60 * minutes
    context = multiprocessing.get_context("spawn")
    crew = [context.Process(target=work, args=(until, home, run, parts)) for _ in range(workers)]
    for worker in crew:
        worker.start()
    for worker in crew:
        worker.join()


def work(until: float, home: Path, run: str, parts: tuple[str, str]) -> None:
    """Take groups of cells nobody has taken, and measure those that are missing."""
    import torch

    from umaf.evaluation.provenance import commit

    measure, groups = (
        getattr(importlib.import_module(part), name)
        for part, name in zip(parts, ("measure", "groups"), strict=True)
    )
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
