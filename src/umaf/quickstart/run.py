"""The quickstart's steps in their order."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from umaf.evaluation.record import new_record, write_record
from umaf.extraction import extract, similarities
from umaf.fusion import fuse
from umaf.models import Model, open_model
from umaf.quickstart.adapters import Adapted, make_adapters, make_oracle, write_adapter
from umaf.quickstart.found import Compared, Outcome
from umaf.quickstart.material import Expert, Say, kind_of, make_experts, sources_of
from umaf.quickstart.page import write_page
from umaf.quickstart.place import KIND, check_place, own_folder
from umaf.quickstart.plan import Plan
from umaf.quickstart.scores import better_route, measure, numbers_of
from umaf.quickstart.writing import answers_written, plain_bits, plain_text
from umaf.tasks.door import texts

FINGERPRINT_PROBES = 64
"""Per capability; every fingerprint of the map reads the same ones."""


def quickstart(plan: Plan, out: str | Path, *, say: Say = lambda _: None) -> Outcome:
    """Move two capabilities from two architectures into a third, measure it, and write a page about it.

    Args:
        plan: what to do, and how much.
        out: the folder to write; an earlier quickstart's is replaced once the new one is whole.
        say: called with a few words at the start of every step.

    Returns:
        Everything that was found; the folder holds it too.

    Raises:
        OutputError: the folder is taken by something else.
        UmafError: a model, a task or a size that cannot be used.

    Example:
        >>> quickstart(Plan(), "out/quickstart").route  # doctest: +SKIP
        'distill'
    """
    with one_thread():
        return _run(plan, Path(out), say)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one core inside the block: models this small only wait for each other on more.

    Example:
        >>> with one_thread():
        ...     torch.get_num_threads()
        1
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _run(plan: Plan, out: Path, say: Say) -> Outcome:
    began, cpu, started = time.perf_counter(), time.process_time(), datetime.now(timezone.utc)
    check_place(out)
    experts = make_experts(plan, say)
    target = open_model(plan.target, device=plan.device, dtype=plan.dtype)
    sources = sources_of(experts, plan)
    made = make_adapters(sources, target, plan, say)
    say("train the oracle on labels")
    oracle = make_oracle(experts, target, plan)

    say("fingerprint all of them, and fuse the sources'")
    adapted = {f"{kind_of(target)} · {route}": one.model for route, one in made.items()}
    compared = compare(experts, adapted, target)
    fused = fuse(compared.fingerprints[: len(sources)])

    say("ask held-out texts")
    forms = {"bare": target, **{route: one.model for route, one in made.items()}, "oracle": oracle}
    cells = tuple(measure(experts, forms, plan))
    route = better_route(cells)
    bits = {name: plain_bits(model) for name, model in forms.items()}
    say("let the target write")
    answers = tuple(answers_written(experts, target, made["distill"].model))
    prose = tuple(plain_text(target, made["distill"].model, seed=plan.seed))

    say(f"write {out}")
    clock = {"wall": time.perf_counter() - began, "cpu": time.process_time() - cpu}
    scores = numbers_of(cells)
    numbers = _numbers(compared, made, scores=scores, kept=route, bits_per_byte=bits, seconds=clock)
    record = new_record(KIND, config=asdict(plan), numbers=numbers, seed=plan.seed, started=started)
    outcome = Outcome(plan, compared, cells, route, bits, answers, prose, record, clock["wall"], Path(out))
    with own_folder(out) as draft:
        write_adapter(draft / "adapter", target, made[route], route=route, sources=sources, fused=fused)
        write_record(draft / "record.json", record)
        write_page(draft, outcome)
    return outcome


def compare(experts: Sequence[Expert], adapted: Mapping[str, Model], target: Model) -> Compared:
    """Fingerprint experts and the adapted target, each against what it was before, on the same probes."""
    probes = [
        text for expert in experts if expert.source for text in texts(expert.task.train)[:FINGERPRINT_PROBES]
    ]
    found = [extract(expert.model, probes, base=expert.base) for expert in experts]
    found += [extract(model, probes, base=target) for model in adapted.values()]
    return Compared(
        names=(*(expert.model.name for expert in experts), *adapted),
        capabilities=(*(expert.short for expert in experts), *("both, moved here" for _ in adapted)),
        architectures=(*(kind_of(expert.base) for expert in experts), *(kind_of(target) for _ in adapted)),
        fingerprints=tuple(found),
        table=similarities(found),
    )


def _numbers(compared: Compared, made: Mapping[str, Adapted], **others: Any) -> dict[str, Any]:
    similarity = {"models": compared.names, "cosine": compared.table.tolist()}
    routes = {route: {"seconds": one.seconds, "history": one.history} for route, one in made.items()}
    return {"similarity": similarity, "routes": routes, **others}
