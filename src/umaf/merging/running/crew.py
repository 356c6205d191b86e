"""Who does what: runs of entries, what is measured before them, and the threads that merge them."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from umaf.merging.planning.jobs import Job, Plan
from umaf.merging.planning.rules import asked_by
from umaf.merging.running.bind import bind, has_lora, release
from umaf.merging.running.room import CHUNK, Room
from umaf.merging.running.sink import Files, Target
from umaf.merging.running.work import Work, divisible, measured, merge_into, rule_of

if TYPE_CHECKING:
    from umaf.checkpoints import Writer

RUN = 64 * CHUNK
"""Entries of the result that a worker takes at a time."""

Progress = Callable[[str, int], None]
"""Called with what is being done and the number of entries of the result that were done since the last call."""


@dataclass(frozen=True)
class Span:
    """A run of entries of one job.

    Attributes:
        job: its place in the plan.
        first: entry where it begins, a multiple of `CHUNK`.
        last: entry where it ends.
    """

    job: int
    first: int
    last: int


@dataclass(frozen=True)
class Measures:
    """What passes over the whole model gave: for each group of jobs that share their options, one mapping."""

    groups: Mapping[str, Mapping[str, Tensor] | None]

    def of(self, work: Work) -> Mapping[str, Tensor] | None:
        """Give what was measured for a piece of work; None where nothing was."""
        return self.groups.get(_group(work)) if rule_of(work).measures(work.options) == "model" else None


NOTHING = Measures({})
"""Where no method looks at the whole model."""


def measure_works(works: Sequence[Work], room: Room) -> Measures:
    """Make the passes over all tensors of a merge that is in memory, once for each set of options they look at.

    Example:
        >>> measure_works([], Room()) == NOTHING
        True
    """
    groups: dict[str, list[Work]] = {}
    for work in works:
        if rule_of(work).measures(work.options) == "model":
            groups.setdefault(_group(work), []).append(work)
    return Measures({group: measured(some, room) for group, some in groups.items()})


def spans(plan: Plan, todo: Sequence[int]) -> Iterator[list[Span]]:
    """Share out the jobs: what a worker takes at a time is some `RUN` entries, or one job that cannot be cut.

    Args:
        plan: the plan.
        todo: places of the jobs that are left.
    """
    batch: list[Span] = []
    size = 0
    for place in todo:
        job = plan.jobs[place]
        length = math.prod(job.shape)
        step = RUN if length > RUN and _can_cut(plan, job) else max(length, 1)
        for first in range(0, max(length, 1), step):
            batch.append(Span(place, first, min(first + step, length)))
            size += step
            if size >= RUN:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _can_cut(plan: Plan, job: Job) -> bool:
    sources = (*job.sources, *([job.base] if job.base is not None else []))
    return not any(has_lora(plan, source) for source in sources) and divisible(job)


def measure_models(plan: Plan, room: Room, report: Progress) -> Measures:
    """Make the passes over the whole model that methods ask for, once for each set of options they look at."""
    groups: dict[str, list[Job]] = {}
    for job in plan.jobs:
        if rule_of(job).measures(job.options) == "model":
            groups.setdefault(_group(job), []).append(job)
    found = {}
    for group, jobs in groups.items():
        report(f"measure {jobs[0].method} over {len(jobs)} tensors", 0)
        found[group] = measured(_Bound(plan, jobs), room)
    return Measures(found)


class _Bound(Sequence[Work]):
    """Jobs that are bound when their turn comes and released behind, so that one is in memory at a time."""

    def __init__(self, plan: Plan, jobs: Sequence[Job]) -> None:
        self._plan, self._jobs = plan, jobs

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def entries(self) -> int:
        """Entries of all the jobs' results."""
        return sum(math.prod(job.shape) for job in self._jobs)

    def __getitem__(self, place: Any) -> Any:
        return bind(self._plan, self._jobs[place])

    def __iter__(self) -> Iterator[Work]:
        for job in self._jobs:
            yield bind(self._plan, job)
            release(self._plan, [job])


def _group(work: Work | Job) -> str:
    method = rule_of(work).method
    asked = () if method is None else sorted(asked_by(method))
    options = {name: work.options.get(name) for name in asked}
    count = len(work.rows) if isinstance(work, Work) else len(work.sources)
    return repr((work.method, count, options))


class Crew:
    """Workers over the batches of one plan; a tensor is done when its last run is.

    Args:
        plan: the plan.
        writer: where the result lies.
        measures: what was measured over the whole model.
        report: told what is done.
    """

    def __init__(self, plan: Plan, writer: Writer, measures: Measures, report: Progress) -> None:
        self.plan, self.writer, self.measures, self.report = plan, writer, measures, report
        self.files = Files(writer.folder, writer.layout, watch=writer.heed)
        self._lock = threading.Lock()
        self._left: dict[int, int] = {}
        self._rooms = threading.local()

    def work(self, batches: Sequence[Sequence[Span]], *, workers: int) -> None:
        """Merge every batch; the first mistake stops all."""
        for batch in batches:
            for span in batch:
                self._left[span.job] = self._left.get(span.job, 0) + 1
        with self.files:
            self._share(batches, workers)

    def _share(self, batches: Sequence[Sequence[Span]], workers: int) -> None:
        if workers == 1:
            for batch in batches:
                self.merge(batch)
            return
        pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
        try:
            futures = [pool.submit(self.merge, batch) for batch in batches]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def merge(self, batch: Sequence[Span]) -> None:
        """Merge one batch."""
        room = getattr(self._rooms, "room", None)
        if room is None:
            room = self._rooms.room = Room()
        for span in batch:
            job = self.plan.jobs[span.job]
            merge_span(self.plan, span, self.files.place(job.name), room=room, measures=self.measures)
            with self._lock:
                self._left[span.job] -= 1
                last = not self._left[span.job]
            # Behind every run: what another worker still reads of the tensor comes back from the disk's cache.
            release(self.plan, [job])
            if last:
                self.writer.done(job.name)
            self.report(job.name, span.last - span.first)


def merge_span(plan: Plan, span: Span, target: Target, *, room: Room, measures: Measures) -> None:
    """Merge a run of entries of one job into the result.

    Args:
        plan: the plan.
        span: which entries.
        target: the place of the whole tensor of the result.
        room: memory of the worker.
        measures: what was measured over the whole model.
    """
    work = bind(plan, plan.jobs[span.job])
    merge_into(work, target, room=room, measure=measures.of(work), first=span.first, last=span.last)
