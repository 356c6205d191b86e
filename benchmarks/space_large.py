"""From a small model to a larger one of its family, end to end: a capability's expert, and routes to the larger target.

    python -m benchmarks.space_large [--minutes 30] [--earlier RECORD]

Every cell is one held-out capability: accuracy of the larger target bare, with `solve`, with `distill` and with a LoRA
trained on the labels, and of the small source. Cells are kept, and those that are there are not measured again; with
`--earlier` neither are those of an earlier record. At the end they become a dated record and a summary.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.cells import goal_of, score
from benchmarks.first_light_summary import as_numbers
from benchmarks.index_plan import Member
from benchmarks.making import RANK, bare, labelled, schedule, source
from benchmarks.plan import Cell
from benchmarks.space_experts import WORK, place_of
from umaf.adapters import attach
from umaf.evaluation.provenance import commit
from umaf.evaluation.record import new_record, write_record
from umaf.evaluation.statistics import recovery
from umaf.evaluation.summary import Figure, write_summary
from umaf.files import write_json
from umaf.generation.distill import RATE, distill
from umaf.generation.solve import solve
from umaf.generation.train import Schedule, train_lora

HOME = WORK / "large"
PLACE = Path(__file__).resolve().parents[1] / "comparison" / "space-large"
PAIRS = (("llama-1m", "llama-5m"), ("bert-1m", "bert-5m"), ("bert-1m", "minilm"), ("gpt2-1m", "gpt2-5m"))
CAPABILITIES = ("snips7", "clinc150/domains", "pros_cons")


def labels(name: str, width: int) -> Schedule:
    """Give the schedule of the LoRA on labels: the transfer benchmark's, at the rate that `distill` has for a width."""
    known = schedule(name)
    return known if name == "minilm" else replace(known, rate=RATE / width)


def measure(small: str, large: str, capability: str, shelves: Sequence[Path]) -> dict[str, float]:
    """Measure one cell: accuracies and CPU seconds."""
    member = Member(small, capability, 0)
    own, found = HOME / "experts" / small / member.folder, place_of(member, shelves)
    if found is not None and not own.exists():
        shutil.copytree(found, own)
    cell, target = Cell("single", small, large, capability, 0), bare(large)
    told = goal_of(cell, HOME)
    rows: dict[str, float] = {
        "source": score(source(small, capability, 0, HOME), capability),
        "bare": score(target, capability),
    }
    best = labels(large, target.width)
    told_steps = best.steps * 7 // 15
    makes = {
        "solve": lambda: solve(target, [told.goal], rank=RANK, seed=0).factors,
        "distill": lambda: distill(target, [told.goal], rank=RANK, seed=0, steps=told_steps).factors,
        "oracle": lambda: train_lora(
            target, [labelled(capability, target)], rank=RANK, schedule=best, seed=0
        ),
    }
    for name, make in makes.items():
        began = time.process_time()
        factors = make()
        rows[f"{name}_cpu"] = round(time.process_time() - began, 2)
        rows[name] = score(attach(target, factors), capability)
        print(small, large, capability, name, rows[name], rows[f"{name}_cpu"], flush=True)
    return rows


def cells(*, minutes: float, shelves: Sequence[Path], earlier: Sequence[dict] = ()) -> list[dict]:
    """Measure what is missing; begin no new cell after so many minutes."""
    until = time.monotonic() + 60 * minutes
    for one in earlier:
        _keep({"commit": None, **one})
    for capability in CAPABILITIES:
        for small, large in PAIRS:
            one = {"source": small, "target": large, "capability": capability}
            if not _place(one).exists() and time.monotonic() < until:
                found = measure(small, large, capability, shelves)
                made_by = commit()
                _keep({"commit": made_by.hash if made_by else None, **one, "scores": found})
    return [json.loads(path.read_text()) for path in sorted((HOME / "cells").glob("*.json"))]


def _place(cell: Mapping[str, Any]) -> Path:
    name = f"{cell['source']}--{cell['target']}--{cell['capability'].replace('/', '-')}.json"
    return HOME / "cells" / name


def _keep(cell: Mapping[str, Any]) -> None:
    path = _place(cell)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, cell)


def figures(found: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """Give the share of the gain of a LoRA on labels that each route brings to a larger model, where it gains."""
    shares: dict[str, Figure] = {}
    for route in ("solve", "distill"):
        gains: dict[str, list[float]] = {}
        for cell in found:
            one = cell["scores"]
            gained = recovery(one[route], one["bare"], one["oracle"])
            if gained is not None:
                gains.setdefault(f"{cell['source']}_{cell['target']}", []).append(gained)
        for pair, values in gains.items():
            shares[f"small_to_large.{route}.{pair}"] = Figure(float(np.mean(values)), n=len(values))
    return shares | {"cells": Figure(len(found), n=len(found), aim=len(PAIRS) * len(CAPABILITIES))}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write record and summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=240.0)
    parser.add_argument("--take", nargs="*", type=Path, default=[], help="folders of experts made elsewhere")
    parser.add_argument(
        "--earlier", type=Path, metavar="RECORD", help="cells of an earlier record, kept as they are"
    )
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    known = json.loads(asked.earlier.read_text())["numbers"] if asked.earlier else {}
    found = cells(minutes=asked.minutes, shelves=asked.take, earlier=known.get("small_to_large", []))
    if not found:
        raise SystemExit("space_large: nothing has been measured yet.")
    config = {
        "pairs": PAIRS, "capabilities": CAPABILITIES, "seeds": (0,), "rank": RANK,
        "earlier": asked.earlier.stem if asked.earlier else None,
    }  # fmt: skip
    numbers = {"figures": as_numbers(figures(found)), "small_to_large": found}
    stamp = f"{datetime.now(timezone.utc):%Y-%m-%d-%H%M}"
    write_record(PLACE / f"{stamp}.json", new_record("space-large", config=config, numbers=numbers))
    write_summary(PLACE / "summary.json", figures(found))
    table = Table("figure", "value", "n", title="from small to large")
    for name, one in figures(found).items():
        table.add_row(name, f"{one.value:.3f}", str(one.n))
    Console().print(table)


if __name__ == "__main__":
    main()
