"""Records below the folders that were named: found by walking, and asked for by a number, never by a path."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from umaf.monitor.read import read_run
from umaf.reports.known import WORDS, Found, identify
from umaf.serve.faults import Fault

DEEP, MOST, FRESH = 7, 4000, 2.0
"""Levels of folders, files looked at, and seconds for which a list is good."""
LARGEST = 8 << 20
NOT_RECORDS = frozenset(
    (
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "vocab.json",
        "added_tokens.json",
        "adapter_config.json",
        "model.safetensors.index.json",
        "job.json",
        "asked.json",
    )
)
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'; sandbox allow-popups"
)
"""Of a report: it runs nothing, and may be shown inside the page."""


@dataclass(frozen=True)
class Seen:
    """A record that was found.

    Attributes:
        id: what it is asked for by.
        kind: a key of `umaf.reports.known.WORDS`.
        name: what it is called.
        place: where it lies, below its root.
        time: of the last change, in seconds since 1970.
        path: the file.
    """

    id: str
    kind: str
    name: str
    place: str
    time: float
    path: Path

    def shown(self) -> dict[str, Any]:
        """Give what the page lists."""
        return {
            "id": self.id,
            "kind": self.kind,
            "what": WORDS[self.kind],
            "name": self.name,
            "place": self.place,
            "time": self.time,
            "adapter": self.kind == "adapter",
        }


class Records:
    """What lies below some folders, read again when it changed.

    Args:
        roots: resolved folders; a link that leads out of them is not followed.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = tuple(roots)
        self._known: dict[tuple[str, int, int], Found] = {}
        self._seen: dict[str, Seen] = {}
        self._pages: dict[tuple[str, int], bytes] = {}
        self._at = -FRESH - 1
        self._lock = threading.Lock()

    def all(self) -> list[Seen]:
        """List records, the newest first."""
        with self._lock:
            if time.monotonic() - self._at > FRESH:
                self._look()
                self._at = time.monotonic()
            return sorted(self._seen.values(), key=lambda one: (-one.time, one.place))

    def get(self, id: str) -> Seen:
        """Give one record.

        Raises:
            Fault: there is none.
        """
        found = next((one for one in self.all() if one.id == id), None)
        if found is None:
            raise Fault(404, f"There is no record {id[:40]!r}; it may have been removed, reload the page.")
        return found

    def page(self, id: str) -> bytes:
        """Give the self-contained report of a record.

        Raises:
            Fault: there is none.
            ConfigError: the record is damaged.
        """
        from umaf.reports.pages import report

        seen = self.get(id)
        key = (id, seen.path.stat().st_mtime_ns)
        with self._lock:
            if key not in self._pages:
                with TemporaryDirectory() as folder:
                    page, _ = report([seen.path], Path(folder) / "report.html")
                    self._pages[key] = page.read_bytes()
                while len(self._pages) > 32:
                    self._pages.pop(next(iter(self._pages)))
            return self._pages[key]

    def run(self, id: str) -> dict[str, Any]:
        """Give the numbers of a run.

        Raises:
            Fault: the record is none.
        """
        seen = self.get(id)
        if seen.kind != "monitor":
            raise Fault(404, f"{seen.name} is {WORDS[seen.kind]} and has no running numbers.")
        return run_of(seen.path.parent)

    def _look(self) -> None:
        """Walk; what did not change since is not read again."""
        known: dict[tuple[str, int, int], Found] = {}
        seen: dict[str, Seen] = {}
        runs: set[Path] = set()
        for root in self._roots:
            for path, status in _files(root):
                key = (str(path), status.st_mtime_ns, status.st_size)
                found = self._known.get(key) or identify(path)
                known[key] = found
                if found.kind not in WORDS or (found.kind == "monitor" and path.parent in runs):
                    continue
                if found.kind == "monitor":
                    runs.add(path.parent)
                # The content stays on the disk: thousands of records would fill the memory.
                known[key] = Found(found.kind, path, {}, found.why)
                id = hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()[:20]
                place = str(path.relative_to(root.parent))
                seen.setdefault(id, Seen(id, found.kind, found.name, place, status.st_mtime, path))
        self._known, self._seen = known, seen


def run_of(folder: Path, *, most: int = 400) -> dict[str, Any]:
    """Read a run's folder for a drawing: long curves are thinned, their last point stays.

    Raises:
        ConfigError: there is no run.
    """
    found = read_run(folder)
    curves = []
    for job, metrics in found.curves.items():
        for name, (steps, values) in metrics.items():
            step = max(1, len(steps) // most)
            kept = sorted({*range(0, len(steps), step), len(steps) - 1})
            numbers = [None if values[at] != values[at] else values[at] for at in kept]
            curves.append(
                {"job": job, "metric": name, "steps": [steps[at] for at in kept], "values": numbers}
            )
    about = {name: getattr(found, name) for name in ("name", "state", "started", "ended", "error", "seconds")}
    return {**about, "alarms": list(found.alarms), "curves": curves}


def _files(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Give files that may be records: plain ones, not too large, not hidden."""
    count, base = 0, len(root.parts)
    for folder, folders, names in os.walk(root, followlinks=False):
        at = Path(folder)
        folders[:] = sorted(
            one
            for one in folders
            if not one.startswith((".", "__")) and one not in ("node_modules", "site-packages")
        )
        if len(at.parts) - base >= DEEP:
            folders.clear()
        for name in sorted(names):
            if not _may_be(name):
                continue
            path = at / name
            try:
                status = path.lstat()
            except OSError:
                continue
            if not os.path.isfile(path) or path.is_symlink() or status.st_size > LARGEST:
                continue
            count += 1
            if count > MOST:
                return
            yield path, status


def _may_be(name: str) -> bool:
    if name.startswith(".") or name in NOT_RECORDS:
        return False
    if name.endswith(".safetensors"):
        return not re.match(r"(adapter_)?model", name) and name != "expert.safetensors"
    return name.endswith(".json") or name == "metrics.jsonl"
