"""Jobs that the page starts: one process at a time, the others wait; each in a folder that outlives the server."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from umaf.files import write_json, write_text
from umaf.serve.faults import Fault
from umaf.web.forms import Order

STATE = "job.json"
KEPT, GRACE = 200, 10.0
"""Jobs that are listed, and seconds that a cancelled process has to clean up."""
OVER = frozenset(("done", "failed", "cancelled", "stopped"))
PYTHON = (sys.executable, "-m", "umaf")


@dataclass(frozen=True)
class Job:
    """A job as it stands.

    Attributes:
        id: of the job, the name of its folder.
        command: "transfer" or "merge".
        words: what is typed after `umaf`.
        state: "waiting", "running", "done", "failed", "cancelled", or "stopped" where its server ended before it.
        out: name of the folder that it writes, inside the job's.
        asked: UTC, ISO 8601.
        started: the same, or None.
        ended: the same, or None.
        error: one sentence, or None.
    """

    id: str
    command: str
    words: tuple[str, ...]
    state: str
    out: str
    asked: str
    started: str | None = None
    ended: str | None = None
    error: str | None = None


class Jobs:
    """A bounded queue and the one thread that works through it.

    Args:
        folder: where jobs write; made when the first one comes.
        waiting: jobs that may wait.
        python: how a command is started; its words follow.
    """

    def __init__(self, folder: Path, *, waiting: int, python: Sequence[str] = PYTHON) -> None:
        self.folder = folder
        self._most, self._python = waiting, tuple(python)
        self._jobs = {job.id: job for job in _read_all(folder)}
        self._queue: list[str] = []
        self._change = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        self._cancelled: set[str] = set()
        self._closing = False
        self._thread = threading.Thread(target=self._work, daemon=True, name="umaf web jobs")
        self._thread.start()

    def submit(self, make: Callable[[Path], Order]) -> Job:
        """Let a job wait for its turn.

        Args:
            make: gives the order, told the job's folder.

        Raises:
            Fault: too many wait.
            UmafError: what `make` says.
        """
        id = f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        folder = self.folder / id
        order = make(folder)
        with self._change:
            if len(self._queue) >= self._most or self._closing:
                raise Fault(
                    503, f"{len(self._queue)} jobs wait already; cancel one, or wait for one to end.", "busy"
                )
            job = Job(id, order.command, order.words, "waiting", order.out.name, _now())
            for name, text in order.files.items():
                write_text(folder / name, text)
            self._keep(job)
            self._queue.append(id)
            self._change.notify_all()
        return job

    def all(self) -> list[Job]:
        """List jobs, the newest first."""
        with self._change:
            return sorted(self._jobs.values(), key=lambda job: (job.asked, job.id), reverse=True)[:KEPT]

    def get(self, id: str) -> Job:
        """Give one job.

        Raises:
            Fault: there is none.
        """
        with self._change:
            if id not in self._jobs:
                raise Fault(404, f"There is no job {id[:40]!r}; reload the page.")
            return self._jobs[id]

    def log(self, id: str, *, most: int = 20_000) -> str:
        """Give the end of what a job printed."""
        with suppress(OSError), (self.folder / self.get(id).id / "log.txt").open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - most))
            return file.read().decode("utf-8", "replace")
        return ""

    def cancel(self, id: str) -> Job:
        """End a job; what is over stays as it is."""
        job = self.get(id)
        with self._change:
            job = self._jobs[id]
            if job.state == "waiting" and id in self._queue:
                self._queue.remove(id)
                self._keep(replace(job, state="cancelled", ended=_now()))
            elif job.state == "running":
                self._cancelled.add(id)
                self._end()
            return self._jobs[id]

    def close(self) -> None:
        """End the running job, and the thread."""
        with self._change:
            self._closing = True
            self._end()
            self._change.notify_all()
        self._thread.join(timeout=GRACE + 5)

    def _end(self) -> None:
        """Ask the process to end; the thread that waits for it sees to it."""
        if self._process is not None and self._process.poll() is None:
            with suppress(ProcessLookupError):
                self._process.terminate()

    def _work(self) -> None:
        while True:
            with self._change:
                while not self._queue and not self._closing:
                    self._change.wait()
                if self._closing:
                    return
                job = replace(self._jobs[self._queue.pop(0)], state="running", started=_now())
                self._keep(job)
            try:
                code, said = self._run(job)
            except OSError as problem:
                code, said = 1, f"The command cannot be started ({problem.strerror})."
            self._over(job, code, said)

    def _over(self, job: Job, code: int, said: str) -> None:
        state = "done" if code == 0 else "failed"
        with self._change:
            if job.id in self._cancelled:
                state = "cancelled"
            elif self._closing and code != 0:
                state = "stopped"
            error = said if state == "failed" else None
            if state in ("cancelled", "stopped"):
                _remove_drafts(self.folder / job.id)
            self._keep(replace(job, state=state, ended=_now(), error=error))
            self._process = None

    def _run(self, job: Job) -> tuple[int, str]:
        """Run the process to its end; give its exit code and the sentence it left with."""
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            "NO_COLOR": "1",
        }
        with (self.folder / job.id / "log.txt").open("wb") as log:
            with self._change:
                if self._closing or job.id in self._cancelled:
                    return 143, ""
                self._process = subprocess.Popen(
                    [*self._python, *job.words],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**environment, "COLUMNS": "100"},
                    start_new_session=True,
                )
            told: float | None = None
            while self._process.poll() is None:
                time.sleep(0.1)
                if told is None and (self._closing or job.id in self._cancelled):
                    told = time.monotonic()
                if told is not None and time.monotonic() - told > GRACE:
                    with suppress(ProcessLookupError, PermissionError):
                        os.killpg(self._process.pid, signal.SIGKILL)
        code = self._process.returncode
        return code, sentence(self.log(job.id), code) if code else ""

    def _keep(self, job: Job) -> None:
        self._jobs[job.id] = job
        write_json(self.folder / job.id / STATE, asdict(job))


def sentence(log: str, code: int) -> str:
    """Find the one sentence that a command left with.

    Example:
        >>> sentence("reading\\numaf: There is no model x; check it.\\n", 1)
        'There is no model x; check it.'
        >>> sentence("", -9)
        'The command was ended by signal 9 and said nothing; the log may say more.'
    """
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    own = [line.removeprefix("umaf: ") for line in lines if line.startswith("umaf: ")]
    if own:
        return own[-1]
    how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
    last = next((line for line in reversed(lines) if not set(line) <= set("─│╭╮╰╯ ")), "")
    return f"The command {how} and said {repr(last[:200]) if last else 'nothing'}; the log may say more."


def _read_all(folder: Path) -> list[Job]:
    """Read the jobs of an earlier server; what it had not ended is over now."""
    found = []
    for path in sorted(folder.glob(f"*/{STATE}"))[-KEPT:]:
        try:
            data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            job = Job(**{**data, "words": tuple(data["words"])})
        except (OSError, ValueError, TypeError, KeyError):
            continue
        if job.id != path.parent.name or Path(job.out).name != job.out:
            continue
        found.append(job if job.state in OVER else replace(job, state="stopped"))
    return found


def _remove_drafts(folder: Path) -> None:
    """Remove what a killed process left half-written."""
    for path in folder.glob(".*.part"):
        shutil.rmtree(path, ignore_errors=True)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")
