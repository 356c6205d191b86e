"""Search from a thousand to a million stored fingerprints: time, recall, memory, disk.

    python -m benchmarks.index_scale [--sizes 1000 10000 100000 1000000]

The fingerprints are made up: a thousand clusters, members at a cosine of 0.8 to their centre, as fingerprints of many
models of one capability would lie. Queries are new members. The true nearest are found by a matrix product while the
rows are made. Every size is a process of its own, so that memory means something, and is kept once measured.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.index_kills import entry, space
from umaf.extraction.fingerprint import WIDTH, Fingerprint
from umaf.files import hash_texts, write_json
from umaf.index.entry import key_of, row_of, schema
from umaf.index.opening import make_store
from umaf.index.search import arrange, by_fingerprint
from umaf.index.store import Store

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "out" / "index"
SOURCES = (
    "benchmarks/index_scale.py",
    "src/umaf/index/store.py",
    "src/umaf/index/search.py",
    "constraints.txt",
)
SIZES = (1_000, 10_000, 100_000, 1_000_000)
CENTRES, ASIDE, QUERIES, WARM, CHUNK = 1000, 0.5, 100, 5, 20_000


def home() -> Path:
    """Give the folder of what the code as it is now measured."""
    return WORK / ("scale-" + hash_texts((ROOT / path).read_text(encoding="utf-8") for path in SOURCES)[:12])


def _members(draw: np.random.Generator, centres: np.ndarray, count: int) -> np.ndarray:
    chosen = centres[draw.integers(len(centres), size=count)]
    noise = draw.standard_normal((count, WIDTH), dtype=np.float32) / WIDTH**0.5
    rows = chosen + ASIDE * noise
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _chunks(size: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield the number of the first row, rows, and the queries, which are always the same."""
    draw = np.random.default_rng(0)
    centres = draw.standard_normal((CENTRES, WIDTH), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    queries = _members(draw, centres, QUERIES)
    for start in range(0, size, CHUNK):
        yield start, _members(draw, centres, min(CHUNK, size - start)), queries


def _append(store: Store, start: int, rows: np.ndarray) -> None:
    """Add rows that are known to be new, without looking for their keys."""
    import pyarrow as pa
    import torch

    row = row_of(entry("made", torch.ones(WIDTH)))
    count = len(rows)
    columns = {
        name: pa.array([value] * count)
        for name, value in row.items()
        if name not in ("fingerprint", "answers")
    }
    names = [f"m{start + at}" for at in range(count)]
    columns["model"], columns["key"] = pa.array(names), pa.array([key_of(name) for name in names])
    columns["fingerprint"] = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), WIDTH)
    columns["answers"] = pa.nulls(count, schema().field("answers").type)
    store._table.add(pa.table([columns[field.name].cast(field.type) for field in schema()], schema=schema()))


def measure(size: int, folder: Path) -> dict:
    """Fill a store, give it cells where it is large, and search it."""
    store = make_store(folder, space())
    best = np.full((QUERIES, 10), -2.0, dtype=np.float32)
    true = np.zeros((QUERIES, 10), dtype=np.int64)
    filled, cpu = time.perf_counter(), time.process_time()
    queries = np.empty(0)
    for start, rows, queries in _chunks(size):
        _append(store, start, rows)
        found = np.concatenate([best, queries @ rows.T], axis=1)
        order = np.argsort(-found, axis=1)[:, :10]
        numbers = np.concatenate([true, np.tile(np.arange(start, start + len(rows)), (QUERIES, 1))], axis=1)
        best, true = np.take_along_axis(found, order, 1), np.take_along_axis(numbers, order, 1)
    times = {"fill_s": time.perf_counter() - filled, "fill_cpu_s": time.process_time() - cpu}
    began, cpu = time.perf_counter(), time.process_time()
    noted = arrange(store)
    times |= {"arrange_s": time.perf_counter() - began, "arrange_cpu_s": time.process_time() - cpu}
    return {
        "size": size,
        **times,
        "noted_recall": noted,
        **_searched(store, queries, true),
        "disk_mb": _disk(folder),
    }


def _searched(store: Store, queries: np.ndarray, true: np.ndarray) -> dict:
    import torch

    wall, cpu, shares = [], [], []
    card = entry("query", torch.ones(WIDTH)).card
    assert card is not None
    for at, query in enumerate(queries):
        asked = Fingerprint(torch.from_numpy(query[None].astype(np.float32)), card)
        began, spent = time.perf_counter(), time.process_time()
        found = by_fingerprint(store, asked)
        if at >= WARM:
            wall.append(1000 * (time.perf_counter() - began))
            cpu.append(1000 * (time.process_time() - spent))
        names = {hit.model for hit in found.hits}
        shares.append(sum(f"m{number}" in names for number in true[at].tolist()) / 10)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "median_ms": statistics.median(wall),
        "p95_ms": sorted(wall)[int(0.95 * len(wall))],
        "best_ms": min(wall),
        "median_cpu_ms": statistics.median(cpu),
        "recall10": sum(shares) / len(shares),
        "recalls": shares,
        "walls": wall,
        "peak_mb": peak,
    }


def _disk(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the sizes that are missing, each in a process of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--here", action="store_true", help="measure in this process")
    asked = parser.parse_args(arguments)
    for size in asked.sizes:
        path = home() / f"{size}.json"
        if path.exists():
            continue
        if not asked.here:
            words = [sys.executable, "-m", "benchmarks.index_scale", "--here", "--sizes", str(size)]
            subprocess.run(words, check=True)
            continue
        folder = home() / f"store-{size}"
        shutil.rmtree(folder, ignore_errors=True)
        found = measure(size, folder)
        write_json(path, found)
        shutil.rmtree(folder, ignore_errors=True)
        print(
            json.dumps({name: value for name, value in found.items() if not isinstance(value, list)}),
            flush=True,
        )


if __name__ == "__main__":
    main()
