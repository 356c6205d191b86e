"""The one thread that writes replies: requests that wait become one batch, each row with its own experts."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from umaf.dispatch.adaptive import AdaptiveModel
from umaf.dispatch.chat import Request
from umaf.dispatch.decision import Decision, joined
from umaf.dispatch.decode import Drawing, Finish, sizes_of
from umaf.dispatch.shelf import by_name
from umaf.errors import UmafError
from umaf.serve.faults import Fault, fault_of

_LOG = logging.getLogger("umaf.serve")


def _unknown(count: int) -> Fault:
    """Log what nobody expected, and give what clients are told of it."""
    _LOG.exception("a batch of %d failed", count)
    return Fault(500, "The server failed while it wrote the reply; its log says how.", "internal")


@dataclass(frozen=True)
class Begun:
    """A reply is about to be written: which experts it gets, and why."""

    experts: dict[str, float]
    why: str
    prompt_tokens: int


@dataclass(frozen=True)
class Written:
    """A piece of a reply; the last one says why it ended."""

    text: str
    finish: Finish | None
    tokens: int


Event = Begun | Written | Fault


@dataclass(eq=False)
class Job:
    """One reply that somebody waits for.

    Attributes:
        request: the prompt, and the text that is dispatched by.
        drawing: how the reply is drawn.
        experts: an expert's name or weights by name; None lets the dispatcher decide.
        tell: called with every event, from the worker's thread.
        until: when it has to be done, by `time.monotonic`.
        fit: no length was asked for, so a reply is as long as the window allows, up to the drawing's.
        gone: set when nobody waits any more.
    """

    request: Request
    drawing: Drawing
    experts: str | Mapping[str, float] | None
    tell: Callable[[Event], None]
    until: float
    fit: bool = False
    gone: threading.Event = field(default_factory=threading.Event)

    def over(self) -> bool:
        """Whether there is no point in writing on."""
        return self.gone.is_set() or time.monotonic() > self.until


class Worker:
    """A thread with a bounded queue in front of an adaptive model.

    Args:
        adaptive: used by this thread alone.
        batch: replies written at once.
        waiting: jobs that may wait.
    """

    def __init__(self, adaptive: AdaptiveModel, *, batch: int, waiting: int) -> None:
        self._adaptive, self._batch = adaptive, batch
        self._waiting: queue.Queue[Job | None] = queue.Queue(maxsize=waiting)
        self._room = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="umaf serve")
        self._thread.start()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Let jobs wait, all or none.

        Raises:
            Fault: there is no room for them.
        """
        with self._room:
            self._forget()
            room = self._waiting.maxsize - self._waiting.qsize()
            if len(jobs) > room:
                raise Fault(
                    503,
                    f"{len(jobs)} replies were asked for, but there is room for {room} to wait; try again later.",
                    "busy",
                )
            if self._closing.is_set():
                raise Fault(503, "The server is closing.", "closing")
            for job in jobs:
                self._waiting.put_nowait(job)

    def _forget(self) -> None:
        """Take jobs out of the queue that nobody waits for any more."""
        with self._waiting.mutex:
            kept = [job for job in self._waiting.queue if job is None or not job.gone.is_set()]
            self._waiting.queue.clear()
            self._waiting.queue.extend(kept)

    def close(self) -> None:
        """End the thread; replies that are being written end where they are."""
        self._closing.set()
        with suppress(queue.Full):
            self._waiting.put_nowait(None)  # wakes a thread that waits for work
        self._thread.join(timeout=10)

    def _work(self) -> None:
        while True:
            jobs = self._next()
            if jobs is None:
                return
            try:
                self._serve(jobs)
            except Exception:  # the thread outlives whatever goes wrong with a batch
                self._fail(jobs, _unknown(len(jobs)))

    def _next(self) -> list[Job] | None:
        """Wait for a job, and take along what waits behind it."""
        jobs = [self._waiting.get()]
        while len(jobs) < self._batch:
            try:
                jobs.append(self._waiting.get_nowait())
            except queue.Empty:
                break
        if self._closing.is_set():
            self._fail([job for job in jobs if job], Fault(503, "The server is closing.", "closing"))
            return None
        asked = [job for job in jobs if job is not None]
        late = [job for job in asked if job.over()]
        self._fail(
            late, Fault(504, "The request waited until its time was over; try again later.", "timeout")
        )
        return [job for job in asked if job not in late]

    @staticmethod
    def _fail(jobs: Sequence[Job], fault: Fault) -> None:
        for job in jobs:
            job.tell(fault)

    def _serve(self, jobs: list[Job]) -> None:
        """Decide and write one batch."""
        ready: list[tuple[Job, Decision, int]] = []
        for job, decision in self._decided(jobs):
            try:
                size = self._fitted(job)
            except UmafError as problem:
                job.tell(fault_of(problem))
                continue
            job.tell(Begun(decision.shares(0), decision.explain(0), size))
            ready.append((job, decision, size))
        self._write(ready)

    def _write(self, ready: list[tuple[Job, Decision, int]]) -> None:
        """Write one batch; where it fails, those who have read nothing yet get their replies one by one."""
        going, read = [job for job, _, _ in ready], set()
        if not going:
            return
        try:
            pieces = self._adaptive.stream(
                [job.request for job in going],
                joined([decision for _, decision, _ in ready]),
                drawings=[job.drawing for job in going],
                left=lambda row: going[row].over() or self._closing.is_set(),
            )
            for piece in pieces:
                if piece.text or piece.finish is not None:
                    read.add(piece.row)
                going[piece.row].tell(Written(piece.text, piece.finish, piece.tokens))
        except Exception as problem:  # a request at fault does not take its neighbours along
            fault = fault_of(problem) if isinstance(problem, UmafError) else _unknown(len(going))
            alone = [] if len(going) == 1 else [at for at in range(len(going)) if at not in read]
            self._fail([job for at, job in enumerate(going) if at not in alone], fault)
            for at in alone:
                self._write([ready[at]])

    def _fitted(self, job: Job) -> int:
        """Count a prompt's tokens, and cut the length of a reply that asked for none."""
        model = self._adaptive.shelf.model
        if not job.fit:
            return sizes_of(model, [job.request.prompt], [job.drawing])[0]
        size = sizes_of(model, [job.request.prompt], [Drawing(1)])[0]
        if model.window is not None and model.head == "lm":
            longest = min(job.drawing.max_new_tokens, model.window - size)
            job.drawing = replace(job.drawing, max_new_tokens=longest)
        return size

    def _decided(self, jobs: Sequence[Job]) -> list[tuple[Job, Decision]]:
        """Run the first pass: once for all jobs that name no experts."""
        open_, found = [job for job in jobs if job.experts is None], []
        try:
            together = self._adaptive.decide([job.request for job in open_]) if open_ else None
        except UmafError:
            together = None  # one of them is at fault; they are asked one by one below
        for at, job in enumerate(open_):
            try:
                own = self._adaptive.decide([job.request]) if together is None else together.take([at])
                found.append((job, own))
            except UmafError as problem:
                job.tell(fault_of(problem))
        for job in jobs:
            if job.experts is None:
                continue
            wanted = {job.experts: 1.0} if isinstance(job.experts, str) else job.experts
            try:
                found.append((job, by_name(self._adaptive.shelf, wanted)))
            except UmafError as problem:
                job.tell(fault_of(problem))
        return found
