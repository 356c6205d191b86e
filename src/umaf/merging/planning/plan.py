"""From a recipe to jobs: every tensor of the result with its sources and options, before a weight is read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umaf.errors import CheckpointError
from umaf.merging.contract import Method
from umaf.merging.planning.check import check_configs, check_shapes, check_vocabularies, float_entry
from umaf.merging.planning.jobs import RULES, Job, Opened, Parts, Plan, Rows, Source
from umaf.merging.planning.opening import Open, open_models, open_ref
from umaf.merging.planning.outline import with_layers
from umaf.merging.planning.roles import counts_tokens, parts_of, pattern_of, role, vectors_are_rows
from umaf.merging.planning.rules import rule_for
from umaf.merging.planning.segments import Found, Segment, segments_of, tensors_of
from umaf.merging.planning.settings import Setting, check_filters, options_of, settings, unsaid
from umaf.merging.planning.sources import Laid, laid_out, surplus
from umaf.merging.recipes.check_recipe import check_recipe
from umaf.merging.recipes.recipe import Recipe
from umaf.merging.recipes.reference import Ref
from umaf.merging.recipes.yaml_file import Place
from umaf.merging.running.room import CHUNK, KEPT
from umaf.merging.running.work import BATCH

__all__ = ["RULES", "Job", "Opened", "Parts", "Plan", "Rows", "Source", "make_plan"]

STORED = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64"}
"""Dtypes of recipes in safetensors' words."""

ASIDE = 24_000_000
"""Bytes that a worker needs besides, whatever the tensors: tables of ranks, buffers, what is read ahead."""


@dataclass(frozen=True)
class _Context:
    """What all jobs of a plan have in common."""

    recipe: Recipe
    method: Method
    segments: Sequence[Segment]
    settings: Sequence[list[Setting]]
    traits: dict[tuple[str, tuple[int, ...], int], tuple[str, Parts]]


def make_plan(recipe: Recipe, *, open: Open = open_ref) -> Plan:
    """Plan a merge: read the headers of all models, and say how each tensor of the result is made.

    The time it takes grows linearly with the number of tensors.

    Args:
        recipe: what is asked.
        open: opens a model without its adapters, in the place of `checkpoints.open_checkpoint`.

    Raises:
        ConfigError: the recipe is wrong, or models do not go together.
        CheckpointError: files are damaged, tensors are missing or have other shapes.
        AdapterError: an adapter does not fit its model.
    """
    method = check_recipe(recipe)
    deltas = method.needs.base == "required" or (method.needs.base == "optional" and recipe.base is not None)
    models = open_models(recipe.refs(), open)
    laid = {one.ref: laid_out(one, number) for number, one in enumerate(models)}
    donor = laid[recipe.base] if recipe.base else laid[_first(recipe)]
    _no_twins(recipe, laid)
    segments = segments_of(recipe, laid, deltas)
    notes = [*recipe.notes, *check_configs(list(laid.values()), donor, recipe)]
    context = _Context(
        recipe,
        method,
        segments,
        [settings(recipe, method, [run.options for run in one.runs], one.options) for one in segments],
        {},
    )
    found = list(tensors_of(segments, donor))
    untied = _heads(found, segments, donor, notes)
    _no_surplus(recipe, segments, found, notes)
    jobs = [_job(one, context) for one in found]
    check_filters(recipe, _names(found, jobs, segments))
    check_shapes(jobs, models, recipe)
    if recipe.tokenizer is None:
        notes += check_vocabularies(models, donor)
    notes += _dtype_notes(jobs, models, recipe)
    jobs = _in_file_order(jobs, models)
    read, written, peak = _sizes(jobs, models)
    return Plan(
        recipe,
        models,
        tuple(jobs),
        donor=donor.number,
        config=_config(recipe, donor, segments, untied),
        tokenizer=recipe.tokenizer,
        notes=tuple(dict.fromkeys(notes)),
        bytes_read=read,
        bytes_written=written,
        peak_memory=peak,
    )


def _first(recipe: Recipe) -> Ref:
    return recipe.models[0].model if recipe.models else recipe.slices[0].sources[0].model


def _no_twins(recipe: Recipe, laid: Mapping[Ref, Laid]) -> None:
    """Refuse one model under two spellings of its path."""
    groups: list[tuple[Place, list[Ref]]] = [(("models",), [one.model for one in recipe.models])]
    for number, one in enumerate(recipe.slices):
        groups.append((("slices", number, "sources"), [piece.model for piece in one.sources]))
    for place, refs in groups:
        seen: dict[tuple[object, ...], Ref] = {}
        for number, ref in enumerate(refs):
            files = tuple(Path(file).resolve() for file in laid[ref].opened.checkpoint.files)
            other = seen.setdefault((files, ref.lora), ref)
            if files and other != ref:
                raise recipe.error(
                    (*place, number, "model"), f"{ref} and {other} are the same files; name one of them."
                )


def _job(found: Found, context: _Context) -> Job:
    recipe, method, segment = context.recipe, context.method, context.segments[found.segment]
    reference = segment.reference.model
    own = found.base or found.names[0]
    entry = reference.entries[own]
    key = (pattern_of(own), entry.shape, reference.number)
    if key not in context.traits:
        blocks, config = bool(reference.outline.prefix), reference.opened.checkpoint.config
        kind = role(own, entry.shape, blocks=blocks)
        context.traits[key] = kind, parts_of(own, entry.shape, config, blocks=blocks)
    kind, parts = context.traits[key]
    sources = tuple(
        Source(run.model.number, name) for run, name in zip(segment.runs, found.names, strict=True)
    )
    base = Source(segment.base.model.number, found.base) if segment.base and found.base else None
    plain = {"name": found.name, "shape": entry.shape, "sources": sources, "parts": parts, "role": kind}
    if not float_entry(entry.dtype):
        # What is counted or made anew may differ: of buffers the base's are taken, or the first model's.
        every = sources if base is None else (base, *sources)
        every = every[:1] if kind == "buffer" else every
        return Job(dtype=entry.dtype, method="copy", **{**plain, "sources": every})
    said = context.settings[found.segment]
    options = options_of(said, recipe, found.name, found.names, kind, found.depth)
    if method.needs.rows and vectors_are_rows(kind, parts):
        options |= unsaid(said, method.needs.rows)
    scale = 1.0 if "scale" in method.options else options.pop("scale", 1.0)
    rule = method.name
    if kind == "buffer":
        rule, options, scale, base, sources = "copy", {}, 1.0, None, ((base or sources[0]),)
        plain["sources"] = sources
    elif method.needs.matrices and not parts.matrix and method.others is None:
        rule = method.needs.otherwise
        if base is None and rule == "base":
            rule = "mean"
        options = {"weight": options["weight"]} if "weight" in options and rule != "base" else {}
    return Job(
        dtype=STORED[recipe.dtype] if recipe.dtype and kind != "buffer" else entry.dtype,
        method=rule,
        base=base,
        options=options,
        scale=scale,
        vocabulary=counts_tokens(found.name),
        **plain,
    )


def _heads(found: list[Found], segments: Sequence[Segment], donor: Laid, notes: list[str]) -> bool | None:
    """Store tied heads once, and give a head to the result if one model has its own.

    Returns:
        What `tie_word_embeddings` becomes; None where it stays.
    """
    last = len(segments) - 1
    segment = segments[last]
    own = segment.reference.model
    every = [*segment.runs, *([segment.base] if segment.base else [])]
    free = [run.model for run in every if run.model.head is not None and not run.model.ties]
    if own.head is not None and own.ties and not free:
        found[:] = [one for one in found if (one.base or one.names[0]) != own.head or one.segment != last]
        notes.append(f"{own.head} is tied to the embeddings; it is merged and stored once, as {own.table}.")
        return None
    if free and own.table is not None and (own.head is None or donor.ties):
        head = free[0].head
        if own.head is None and head is not None and free[0].table is not None:
            names = tuple(run.model.head or run.model.table or head for run in segment.runs)
            base = (segment.base.model.head or segment.base.model.table) if segment.base else None
            found.append(Found(head, last, names, base, 0.0))
        notes.append(
            f"{free[0].name} has a head of its own, and others tie theirs to the embeddings; the result has its own."
        )
        return False
    mixed = [run.model for run in every if run.model.head is None and run.model.table is not None]
    if own.head is not None and mixed:
        notes.append(
            f"{mixed[0].name} ties its head to the embeddings; these are merged into {own.head} too."
        )
        return False if donor.ties else None
    return None


def _no_surplus(recipe: Recipe, segments: Sequence[Segment], found: list[Found], notes: list[str]) -> None:
    """Refuse tensors of a model that nothing is made of: the models are not of one kind."""
    if recipe.slices:
        # Layers are left out on purpose, and each end of the result takes its own share of what lies outside them.
        return
    used: dict[int, set[str]] = {}
    runs, base = segments[0].runs, segments[0].base
    for one in found:
        for run, name in zip(runs, one.names, strict=True):
            used.setdefault(run.model.number, set()).add(name)
        if base is not None and one.base is not None:
            used.setdefault(base.model.number, set()).add(one.base)
    for run in (*runs, *([base] if base is not None else [])):
        idle = [name for name in run.model.entries if name not in used[run.model.number]]
        left = surplus(run.model, idle)
        if left:
            raise CheckpointError(
                f"{run.model.name} has {len(left)} tensor{'s' * (len(left) > 1)} that "
                f"{segments[0].reference.model.name} lacks, {left[0]} among them; only models of one architecture can "
                "be merged, so take them out or add them there."
            )
        if idle:
            notes.append(
                f"{idle[0]} of {run.model.name} is left out: it is computed, or tied to the embeddings."
            )


def _names(found: Sequence[Found], jobs: Sequence[Job], segments: Sequence[Segment]) -> Mapping[str, str]:
    names: dict[str, str] = {}
    for one, job in zip(found, jobs, strict=True):
        names[one.name] = job.role
        if one.names != (one.name,) * len(one.names):
            names.update(dict.fromkeys(one.names, job.role))
    return names


def _dtype_notes(jobs: Sequence[Job], models: Sequence[Opened], recipe: Recipe) -> list[str]:
    kinds = {
        models[source.model].checkpoint.entries[source.tensor].dtype
        for job in jobs
        if job.method != "copy"
        for source in (*job.sources, *([job.base] if job.base else []))
    }
    stored = {job.dtype for job in jobs if job.method != "copy"}
    if len(kinds) > 1 and recipe.dtype is None:
        return [
            f"The models are stored as {', '.join(sorted(kinds))}; the result as {', '.join(sorted(stored))}, like the "
            "base or the first model, unless dtype says otherwise."
        ]
    return []


def _in_file_order(jobs: Sequence[Job], models: Sequence[Opened]) -> list[Job]:
    """Sort jobs so that files are read from front to back."""
    places = [{file: number for number, file in enumerate(one.checkpoint.files)} for one in models]

    def key(job: Job) -> tuple[int, int, int]:
        source = job.base or job.sources[0]
        entry = models[source.model].checkpoint.entries[source.tensor]
        return source.model, places[source.model].get(entry.file, 0), entry.start

    return sorted(jobs, key=key)


def _sizes(jobs: Sequence[Job], models: Sequence[Opened]) -> tuple[int, int, int]:
    """Give bytes read, bytes written, and the most that one worker holds at a time."""
    width = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
    read = written = peak = 0
    for job in jobs:
        every = (*job.sources, *([job.base] if job.base else []))
        entries = [models[source.model].checkpoint.entries[source.tensor] for source in every]
        numel = math.prod(job.shape)
        out = numel * width[job.dtype] if job.dtype in width else entries[0].size
        inside = sum(entry.size for entry in entries)
        read, written = read + inside, written + out
        peak = max(peak, inside + out + 4 * _inside(job, numel))
    return read, written, peak + ASIDE


def _inside(job: Job, numel: int) -> int:
    """Count the float32 numbers that a worker has at a time while it merges a tensor."""
    rule = rule_for(job.method, parts=job.parts, based=job.base is not None, options=job.options)
    rows = len(job.sources) + 2
    chunks = rows * min(numel, CHUNK)
    if rule.function is None or rule.needs.scope == "element":
        return chunks + (numel if rule.needs.sums and numel <= KEPT else 0)
    if rule.needs.matrices and job.parts.experts:
        matrix = numel // job.parts.experts
        numel = max(matrix, min(numel, BATCH)) if rule.needs.batched else matrix
    return chunks + math.ceil(numel * (rows + rule.needs.memory * len(job.sources)))


def _config(recipe: Recipe, donor: Laid, segments: Sequence[Segment], untied: bool | None) -> dict[str, Any]:
    """Say what changes in the donor's config."""
    config = donor.opened.checkpoint.config
    if config is None:
        return {}
    changed: dict[str, Any] = {}
    if recipe.slices:
        origins = [
            ((run := one.runs[0]).model.opened.checkpoint.config or {}, run.start + offset)
            for one in segments
            for offset in range(one.length)
        ]
        changed |= with_layers(config, origins)
    if recipe.dtype is not None:
        changed["torch_dtype" if "torch_dtype" in config and "dtype" not in config else "dtype"] = (
            recipe.dtype
        )
    if untied is not None:
        changed["tie_word_embeddings"] = untied
    return changed
