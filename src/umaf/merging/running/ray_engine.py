"""The same plan over a Ray cluster: batches of the result as tasks, bit for bit what threads give.

Every machine must see the models and the output under the same paths. A task opens the models again and writes its
tensors in place, so that no weights travel; what comes back is which runs of entries are done.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from umaf.checkpoints import Checkpoint, Layout, Writer, open_checkpoint
from umaf.errors import ConfigError, UmafError
from umaf.merging.planning.jobs import Opened, Plan
from umaf.merging.running.bind import release
from umaf.merging.running.crew import Measures, Progress, Span, merge_span
from umaf.merging.running.room import Room
from umaf.merging.running.sink import Files

if TYPE_CHECKING:
    from umaf.deltas import Lora


@dataclass(frozen=True)
class Packed:
    """A plan as it travels: its models by their folders.

    Attributes:
        plan: without models.
        folders: of the models, and what they were opened by.
        loras: of each model.
        draft: where the result grows.
        layout: of the result.
        measures: what was measured over the whole model.
    """

    plan: Plan
    folders: tuple[tuple[str, bool], ...]
    loras: tuple[tuple[Lora, ...], ...]
    draft: Path
    layout: Layout
    measures: Measures


def run_on_ray(
    plan: Plan,
    writer: Writer,
    batches: Sequence[Sequence[Span]],
    *,
    measures: Measures,
    workers: int,
    report: Progress,
) -> None:
    """Merge every batch on a Ray cluster: the one that is connected or that RAY_ADDRESS names, else local workers.

    Args:
        plan: whose models are open here.
        writer: where the result grows.
        batches: runs of entries, as `crew.spans` gives them.
        measures: what was measured over the whole model.
        workers: processes to start where there is no cluster, and tasks at a time.
        report: told what is done.

    Raises:
        ConfigError: Ray is not installed.
        UmafError: what went wrong in a task.
    """
    ray = start(workers)
    # Each machine has as many tasks as `workers`; the cluster has those of all machines.
    task = ray.remote(num_cpus=1, max_retries=2)(merge_batch)
    packed = ray.put(pack(plan, writer, measures))
    left: dict[int, int] = {}
    for batch in batches:
        for span in batch:
            left[span.job] = left.get(span.job, 0) + 1
    waiting = {task.remote(packed, list(batch)): batch for batch in batches}
    try:
        while waiting:
            (ready,), _ = ray.wait(list(waiting), num_returns=1)
            problem = ray.get(ready)
            if problem is not None:
                raise problem
            for span in waiting.pop(ready):
                job = plan.jobs[span.job]
                left[span.job] -= 1
                if not left[span.job]:
                    writer.done(job.name)
                report(job.name, span.last - span.first)
    finally:
        for one in waiting:
            ray.cancel(one)


def start(workers: int) -> Any:
    """Connect to a cluster, or start one on this machine.

    Raises:
        ConfigError: Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise ConfigError(
            "The engine ray needs Ray, which is not installed; install umaf[ray], or leave out --engine."
        ) from None
    if not ray.is_initialized():
        if os.environ.get("RAY_ADDRESS"):
            ray.init(log_to_driver=False)
        else:
            ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    return ray


def pack(plan: Plan, writer: Writer, measures: Measures) -> Packed:
    """Make a plan ready to travel: without its memory maps."""
    return Packed(
        replace(plan, models=()),
        tuple(_place(one.checkpoint) for one in plan.models),
        tuple(one.loras for one in plan.models),
        writer.folder.absolute(),
        writer.layout,
        measures,
    )


def _place(checkpoint: Checkpoint) -> tuple[str, bool]:
    files = checkpoint.files
    pickled = any(file.suffix != ".safetensors" for file in files)
    alone = checkpoint.config is None and len(files) == 1
    return str((files[0] if alone else checkpoint.folder).absolute()), pickled


def merge_batch(packed: Packed, batch: Sequence[Span]) -> UmafError | None:
    """Merge one batch in a process of its own.

    Args:
        packed: the plan.
        batch: which runs of entries.

    Returns:
        What went wrong: errors of umaf travel whole; None where nothing did.
    """
    torch.set_num_threads(1)
    opened: Mapping[str, Checkpoint] = {
        path: open_checkpoint(path, allow_pickle=pickled) for path, pickled in set(packed.folders)
    }
    refs = packed.plan.recipe.refs()
    models = tuple(
        Opened(ref, opened[path], loras)
        for ref, (path, _), loras in zip(refs, packed.folders, packed.loras, strict=True)
    )
    plan = replace(packed.plan, models=models)
    room = Room()
    try:
        with Files(packed.draft, packed.layout) as files:
            for span in batch:
                job = plan.jobs[span.job]
                merge_span(plan, span, files.place(job.name), room=room, measures=packed.measures)
                release(plan, [job])
    except UmafError as problem:
        return problem
    return None
