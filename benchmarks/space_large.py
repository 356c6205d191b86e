"""From a small model to a larger one of its family, end to end: a capability's expert, and routes to the larger target.

    python -m benchmarks.space_large [--minutes 30]

Every cell is one held-out capability: accuracy of the larger target bare, with `solve`, with `distill` and with a LoRA
trained on the labels, and of the small source. Cells are kept, and those that are there are not measured again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.cells import goal_of, score
from benchmarks.index_plan import Member
from benchmarks.making import RANK, bare, labelled, schedule, source
from benchmarks.plan import Cell
from benchmarks.space_experts import WORK, place_of
from umaf.adapters import attach
from umaf.files import write_json
from umaf.generation.distill import RATE, distill
from umaf.generation.solve import solve
from umaf.generation.train import Schedule, train_lora

HOME = WORK / "large"
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


def cells(*, minutes: float, shelves: Sequence[Path]) -> list[dict]:
    """Measure what is missing; begin no new cell after so many minutes."""
    until = time.monotonic() + 60 * minutes
    for capability in CAPABILITIES:
        for small, large in PAIRS:
            path = HOME / "cells" / f"{small}--{large}--{capability.replace('/', '-')}.json"
            if not path.exists() and time.monotonic() < until:
                found = measure(small, large, capability, shelves)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_json(
                    path, {"source": small, "target": large, "capability": capability, "scores": found}
                )
    return [json.loads(path.read_text()) for path in sorted((HOME / "cells").glob("*.json"))]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=240.0)
    parser.add_argument("--take", nargs="*", type=Path, default=[], help="folders of experts made elsewhere")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for one in cells(minutes=asked.minutes, shelves=asked.take):
        print(one, flush=True)


if __name__ == "__main__":
    main()
