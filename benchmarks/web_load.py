"""Fifty clients at once read and write through the page of umaf web, against a server process of its own.

    python -m benchmarks.web_load [--clients 50] [--seconds 60] [--entries 1000]

Each client asks again as soon as it is answered: map, lists, cards, searches by texts and by model, comparisons,
records, previews of a transfer; one request in eight adds a model by its outputs. An error is whatever is not answered
with what was asked for within 30 s. At the end the server is stopped, the store opened anew, and every write that was
acknowledged has to be in it, whole. Server, store and clients share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import torch

from benchmarks.index_kills import entry, space
from umaf.files import hash_texts, write_json
from umaf.index.entry import renamed
from umaf.index.opening import make_store, open_store
from umaf.index.store import Store
from umaf.index.verify import verify

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("benchmarks/web_load.py", "src/umaf/web/*.py", "src/umaf/index/store.py")
CLIENTS, SECONDS, ENTRIES, PATIENCE = 50, 60.0, 1000, 30.0
TEXTS = ("probe 1 and more", "probe 7 and less", "probe 12", "another probe 3")
FORM = {
    "source": "zoo:bert-1m",
    "target": "zoo:gpt2-1m",
    "probes": "\n".join(f"text {number}" for number in range(20)),
}


@dataclass
class Told:
    """What the clients saw.

    Attributes:
        seconds: of every request that was answered well, by what was asked.
        errors: sentence -> how often.
        written: key -> name of every write that was acknowledged.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    written: dict[str, str] = field(default_factory=dict)


def home() -> Path:
    """Give the folder of what the code as it is now measured."""
    files = sorted(path for pattern in SOURCES for path in ROOT.glob(pattern))
    return (
        ROOT
        / "out"
        / "index"
        / ("web-" + hash_texts(path.read_text(encoding="utf-8") for path in files)[:12])
    )


def fill(place: Path, entries: int) -> Store:
    """Make a store of made-up models with fingerprints and answers."""
    store, stream = make_store(str(place), space()), torch.Generator().manual_seed(0)
    vectors = torch.randn(entries, 512, generator=stream)
    answers = torch.nn.functional.normalize(torch.randn(entries, 1024, generator=stream))
    made = [
        renamed(
            entry(f"made-{at}", vectors[at], architecture=("bert", "llama", "t5")[at % 3]),
            answers=answers[at],
        )
        for at in range(entries)
    ]
    store.put(made)
    return store


async def drive(address: str, *, clients: int, seconds: float) -> Told:
    """Let clients ask for a while, each the next thing once the last is answered.

    Args:
        address: of the page.
        clients: at once.
        seconds: no request begins after these.
    """
    told, until = Told(), time.monotonic() + seconds
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=address, timeout=PATIENCE, limits=limits) as http:
        keys = [row["key"] for row in (await http.get("/api/models?limit=500")).json()["models"]]
        await asyncio.gather(*(_client(http, number, keys, until, told) for number in range(clients)))
    return told


async def _client(
    http: httpx.AsyncClient, number: int, keys: Sequence[str], until: float, told: Told
) -> None:
    draw, count = random.Random(number), 0
    while time.monotonic() < until:
        count += 1
        name, path, body = _next(draw, keys, f"load-{number}-{count}")
        began = time.perf_counter()
        try:
            answer = await (http.get(path) if body is None else http.post(path, json=body))
            found = answer.json()
            if answer.status_code >= 400:
                raise ValueError(f"{answer.status_code} {found['error']['message']}")
            if name == "write":
                told.written[found["key"]] = body["name"] if body else ""
        except (httpx.HTTPError, ValueError, KeyError) as problem:
            told.errors[f"{name}: {type(problem).__name__} {str(problem)[:150]}"] += 1
            continue
        told.seconds.setdefault(name, []).append(time.perf_counter() - began)


def _next(draw: random.Random, keys: Sequence[str], new: str) -> tuple[str, str, dict[str, Any] | None]:
    """Choose what a client asks next."""
    one, other = draw.sample(keys, 2)
    outputs = [[draw.random() for _ in range(4)] for _ in space().texts]
    asks: list[tuple[str, str, dict[str, Any] | None]] = [
        ("write", "/api/models", {"name": new, "outputs": outputs}),
        ("map", "/api/map?difference=false", None),
        ("card", f"/api/models/{one}", None),
        ("list", "/api/models?architecture=llama&limit=50", None),
        ("texts", "/api/search", {"by": "texts", "texts": list(TEXTS), "labels": ["a", "b", "a", "b"]}),
        ("model", "/api/search", {"by": "model", "model": one}),
        ("compare", f"/api/compare?a={one}&b={other}", None),
        ("pages", *draw.choice([("/api/records", None), ("/api/jobs", None), ("/api/preview", _PREVIEW)])),
    ]
    return draw.choice(asks)


_PREVIEW = {"command": "transfer", "form": FORM}


def lost(store: Store, written: Mapping[str, str]) -> list[str]:
    """Name the acknowledged writes that are not in a store as they were sent."""
    there = {row["key"]: row["model"] for row in store.rows(columns=["key", "model"])}
    return [name for key, name in written.items() if there.get(key) != name]


def measure(*, clients: int = CLIENTS, seconds: float = SECONDS, entries: int = ENTRIES) -> dict[str, Any]:
    """Start a server, load it, stop it, and look at what is in its store."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        fill(root / "store", entries)
        words = ["web", "--store", "store", "--out", "jobs", "--port", "0", "--json"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
        server = subprocess.Popen(
            [sys.executable, "-m", "umaf", *words],
            cwd=root,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        try:
            if server.stdout is None:
                raise RuntimeError("the server has no output")
            address = json.loads(server.stdout.readline())["address"]
            began = time.monotonic()
            told = asyncio.run(drive(address, clients=clients, seconds=seconds))
            lasted = time.monotonic() - began
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(timeout=60)
        store = open_store(str(root / "store"))
        gone, faults = lost(store, told.written), verify(store).faults
    return {
        **numbers(told, lasted),
        "lost": len(gone),
        "faults": list(faults)[:5],
        "clients": clients,
        "entries": entries,
    }


def numbers(told: Told, lasted: float) -> dict[str, Any]:
    """Put together what the clients saw."""
    each = {
        name: {
            "n": len(values),
            "median_ms": 1000 * statistics.median(values),
            "p95_ms": 1000 * _share(values, 0.95),
        }
        for name, values in sorted(told.seconds.items())
    }
    whole = [value for values in told.seconds.values() for value in values]
    return {
        "seconds": lasted,
        "requests": len(whole) + told.errors.total(),
        "errors": told.errors.total(),
        "said": dict(told.errors.most_common(10)),
        "writes": len(told.written),
        "per_second": len(whole) / lasted,
        "median_ms": 1000 * statistics.median(whole),
        "p95_ms": 1000 * _share(whole, 0.95),
        "worst_ms": 1000 * max(whole),
        "each": each,
        "load": os.getloadavg()[0],
    }


def _share(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, unless the code as it is now was measured, and keep it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--entries", type=int, default=ENTRIES)
    asked = parser.parse_args(arguments)
    file = home() / "web.json"
    if not file.exists():
        found = measure(clients=asked.clients, seconds=asked.seconds, entries=asked.entries)
        write_json(file, found)
    print(file.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
