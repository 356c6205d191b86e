"""From a job of the plan to work: its tensors on their memory maps, adapters added, tokens in order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from umaf.merging.planning.jobs import Job, Plan, Rows, Source
from umaf.merging.running.feeds import Aligned, Fallback, Feed, Flat, Stored, Table
from umaf.merging.running.work import Work


def bind(plan: Plan, job: Job) -> Work:
    """Put the inputs of a job at hand; only adapters and nothing else is computed here.

    Args:
        plan: whose models are open.
        job: one of its jobs.
    """
    base = None if job.base is None else job.base
    if job.rows is None:
        feeds: list[Feed] = [_feed(plan, source) for source in job.sources]
        ground: Feed | None = None if base is None else _feed(plan, base)
    else:
        feeds, ground = _aligned(plan, job, job.rows)
    return Work(
        job.name,
        job.shape,
        job.method,
        tuple(feeds),
        ground,
        job.options,
        job.scale,
        job.parts,
        plan.recipe.seed,
    )


def _feed(plan: Plan, source: Source) -> Feed:
    if not has_lora(plan, source):
        return Stored(plan.models[source.model].checkpoint, source.tensor, where(plan, source))
    return Flat(flat_of(plan, source), where(plan, source))


def where(plan: Plan, source: Source) -> str:
    """Name the file and the tensor, for messages."""
    entry = plan.models[source.model].checkpoint.entries[source.tensor]
    return f"{entry.file}: {source.tensor}"


def has_lora(plan: Plan, source: Source) -> bool:
    """Tell whether an adapter changes a tensor."""
    return any(source.tensor in lora for lora in plan.models[source.model].loras)


def flat_of(plan: Plan, source: Source) -> Tensor:
    """Give a tensor's entries `[numel]`: where they lie, or as float32 with the adapters of its model added."""
    opened = plan.models[source.model]
    if not has_lora(plan, source):
        return opened.checkpoint.flat(source.tensor)
    weight = opened.checkpoint.read(source.tensor).to(torch.float32, copy=True)
    for lora in opened.loras:
        if source.tensor in lora:
            weight = lora.apply(source.tensor, weight)
    return weight.reshape(-1)


def release(plan: Plan, jobs: Sequence[Job]) -> None:
    """Tell the kernel that the pages of these jobs' inputs are no longer needed."""
    for job in jobs:
        for source in (*job.sources, *([job.base] if job.base is not None else [])):
            plan.models[source.model].checkpoint.release(source.tensor)


def _aligned(plan: Plan, job: Job, rows: Rows) -> tuple[list[Feed], Feed | None]:
    def table(source: Source, index: Tensor | None) -> Table:
        count = plan.models[source.model].checkpoint.entries[source.tensor].shape[0]
        flat = flat_of(plan, source)
        return Table(flat, flat.numel() // max(count, 1), index, where(plan, source))

    tables = [table(source, index) for source, index in zip(job.sources, rows.index, strict=True)]
    base = None if job.base is None else table(job.base, rows.base)
    given = {
        token: None if choice is None else (table(choice[0], None), choice[1])
        for token, choice in rows.given.items()
    }
    fallback = Fallback(tables, base, given)
    feeds: list[Feed] = [Aligned(one, rows.count, fallback) for one in tables]
    return feeds, None if base is None else Aligned(base, rows.count, fallback)
