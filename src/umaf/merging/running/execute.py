"""Running a plan: every tensor is merged where it will lie in the result, by several workers, and may be resumed.

    execute(make_plan(read_recipe("recipe.yml")), "merged")

Workers are threads over tensors, one thread of arithmetic each; large tensors of entry-wise methods are shared out in
runs of chunks. Which worker does what changes no bit of the result. The result grows in a hidden folder beside OUT
that takes its name when it is whole; killed before that, `resume=True` goes on from the tensors that are whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from umaf.checkpoints import Writer, begin, finish, lay_out
from umaf.errors import ConfigError, OutputError, UmafError
from umaf.merging.planning.jobs import Plan
from umaf.merging.planning.vocabulary import align, read_alignment
from umaf.merging.running.crew import Crew, Measures, Progress, measure_models, spans
from umaf.merging.running.room import Room
from umaf.merging.writing.identities import identity_of
from umaf.merging.writing.output import complete

SHARD = 5_000_000_000
"""Bytes of a file of the result, at most."""


def execute(
    plan: Plan,
    out: str | Path,
    *,
    workers: int | None = None,
    resume: bool = False,
    engine: Literal["local", "ray"] = "local",
    shard_bytes: int = SHARD,
    progress: Progress | None = None,
) -> Path:
    """Merge what a plan says into a new folder that transformers loads.

    Args:
        plan: as `make_plan` gives it.
        out: a folder that is not there yet, or empty.
        workers: how many tensors are merged at a time; None: one for each core.
        resume: go on from what an interrupted merge of the same recipe and inputs left.
        engine: "local" threads, or tasks of a "ray" cluster that sees the same files.
        shard_bytes: size of a file of the result, at most.
        progress: told what is being done.

    Returns:
        The folder.

    Raises:
        OutputError: the folder is not empty, the disk is full, or nothing of this merge is there to resume.
        NumericalError: an input holds NaN or infinity, or the merge makes it.
        CheckpointError: tensors that must agree do not.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"A merge needs at least 1 worker, got {workers}.")
    report = progress or (lambda what, entries: None)
    alignment = read_alignment(plan)
    plan = align(plan, alignment)
    identities = [identity_of(one) for one in plan.models]
    layout = lay_out([(job.name, job.dtype, job.shape) for job in plan.jobs], shard_bytes=shard_bytes)
    draft = begin(out, resume=resume)
    try:
        writer = Writer(draft, layout, resume=resume, key=key_of(plan, identities))
        try:
            _run(plan, writer, workers or cores(), engine, report)
        finally:
            shards = writer.close()
        complete(plan, draft, alignment=alignment, identities=identities, shards=shards)
    except UmafError as problem:
        # What another run would stop at too is not kept; a full disk can be emptied.
        if not isinstance(problem, OutputError):
            shutil.rmtree(draft, ignore_errors=True)
        raise
    finish(draft, out)
    return Path(out)


def cores() -> int:
    """Count the cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def key_of(plan: Plan, identities: Sequence[str]) -> str:
    """Hash what decides the bits of the result: the jobs, the seed, and the inputs."""
    jobs = [
        [
            job.name,
            job.dtype,
            list(job.shape),
            job.method,
            [[source.model, source.tensor] for source in job.sources],
            None if job.base is None else [job.base.model, job.base.tensor],
            sorted(job.options.items()),
            job.scale,
        ]
        for job in plan.jobs
    ]
    models = [[str(one.ref), known] for one, known in zip(plan.models, identities, strict=True)]
    tokenizer = None if plan.tokenizer is None else plan.tokenizer.model_dump(mode="json")
    text = json.dumps([jobs, models, plan.recipe.seed, tokenizer], default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _run(plan: Plan, writer: Writer, workers: int, engine: str, report: Progress) -> None:
    todo = [place for place, job in enumerate(plan.jobs) if job.name not in writer.whole]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        measures = measure_models(plan, Room(), report) if todo else Measures({})
        batches = list(spans(plan, todo))
        if engine == "ray":
            from umaf.merging.running.ray_engine import run_on_ray

            run_on_ray(plan, writer, batches, measures=measures, workers=workers, report=report)
        else:
            Crew(plan, writer, measures, report).work(batches, workers=workers)
    finally:
        torch.set_num_threads(threads)
