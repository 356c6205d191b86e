"""The numbers of a running job, written line by line, so that they can be read while it runs and after it broke."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

from umaf.errors import OutputError
from umaf.evaluation.provenance import versions
from umaf.files import write_json
from umaf.monitor.alarms import Alarms
from umaf.monitor.sinks import open_sink
from umaf.pulse import listening

METRICS, RUN = "metrics.jsonl", "run.json"


class Monitor:
    """Listens while its block runs: every number told by `umaf.pulse.tell` becomes a line of `metrics.jsonl`.

    A line is `{"time", "job", "step", name: value, ...}`, or `{"time", "job", "step", "alarm": sentence}`; a number
    that is NaN or infinite is written as null, and there is an alarm for it. `run.json` says how the run ended. A
    second run in the same folder goes on in the same file.

    Args:
        folder: of the run; made if it is not there.
        name: what runs, for people.
        to: further places: "tensorboard", "wandb".
        config: settings of the run, kept in `run.json`.

    Raises:
        OutputError: the folder cannot be written to.
        ConfigError: a further place is unknown or not installed.

    Example:
        >>> import tempfile
        >>> from umaf.pulse import tell
        >>> folder = Path(tempfile.mkdtemp()) / "run"
        >>> with Monitor(folder, name="a test"):
        ...     tell("train", 1, loss=0.5)
        >>> json.loads((folder / METRICS).read_text())["loss"]
        0.5
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        name: str,
        to: Iterable[str] = (),
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._about: dict[str, Any] = {
            "kind": "monitor",
            "name": name,
            "state": "running",
            "started": _now(),
            "ended": None,
            "error": None,
            "process": os.getpid(),
            "config": dict(config or {}),
            "versions": versions(),
        }
        self._to = tuple(to)
        self._alarms = Alarms()
        self._stack = ExitStack()

    def __enter__(self) -> Monitor:
        with ExitStack() as stack:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                # Closed by the stack; a line is whole before the next one begins.
                self._file = stack.enter_context(
                    (self.folder / METRICS).open("a", encoding="utf-8", buffering=1)
                )
            except OSError as problem:
                raise OutputError(
                    f"The run {self.folder} cannot be written ({problem.strerror}); name a place you may write to."
                ) from problem
            about = self._about
            self._sinks = [
                open_sink(kind, self.folder, name=about["name"], config=about["config"]) for kind in self._to
            ]
            for sink in self._sinks:
                stack.callback(sink.close)
            write_json(self.folder / RUN, about)
            stack.enter_context(listening(self.write))
            self._stack = stack.pop_all()
        return self

    def write(self, job: str, step: int, numbers: Mapping[str, float]) -> None:
        """Write the numbers of one step, and what looks wrong in them."""
        values = {name: float(value) for name, value in numbers.items()}
        self._line(
            job, step, {name: value if math.isfinite(value) else None for name, value in values.items()}
        )
        for sentence in self._alarms.watch(job, step, values):
            self._line(job, step, {"alarm": sentence})
        for sink in self._sinks:
            sink.write(job, step, values)

    def _line(self, job: str, step: int, row: Mapping[str, Any]) -> None:
        text = json.dumps({"time": round(time.time(), 3), "job": job, "step": step, **row}, allow_nan=False)
        self._file.write(text + "\n")

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, _: TracebackType | None
    ) -> None:
        self._stack.close()
        self._about["ended"] = _now()
        self._about["state"] = "done" if kind is None else "failed"
        if kind is not None:
            self._about["error"] = " ".join(str(problem).split())[:300] or kind.__name__
        write_json(self.folder / RUN, self._about)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
