"""The experts that an extractor is trained on: brief fine-tunings of the zoo's models, trained once and kept.

    python -m benchmarks.space_experts [--minutes 60] [--take FOLDER ...]

They are trained by `zoo/experts.py` as those of the index are, which are taken over with --take. A run that was stopped
goes on with the next expert, capability by capability over all models.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.index_plan import Member, task_of
from benchmarks.space_plan import members, schedule
from umaf.errors import OutputError, TaskError
from zoo.experts import expert

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "out" / "space"
SHELF = WORK / "experts"


def place_of(member: Member, others: Sequence[Path] = ()) -> Path | None:
    """Give the folder of an expert: on the own shelf, or on another; None where it was not trained."""
    places = [shelf / member.folder for shelf in (SHELF, *others)]
    return next((place for place in places if place.is_dir()), None)


def train(*, minutes: float, others: Sequence[Path]) -> None:
    """Train what is missing; begin no new expert after so many minutes."""
    until = time.monotonic() + 60 * minutes
    for member in members():
        if place_of(member, others) or time.monotonic() > until:
            continue
        began = time.process_time()
        try:
            expert(
                f"zoo:{member.model}",
                task_of(member.task),
                SHELF,
                seed=member.seed,
                schedule=schedule(member),
            )
        except OutputError:
            continue  # another process was quicker
        except TaskError as problem:
            print(f"{member.name}: {problem}", flush=True)  # two labels that a tokenizer does not tell apart
            continue
        print(f"{member.name}: {time.process_time() - began:.1f} s", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=240.0, help="begin no new expert after this long")
    parser.add_argument("--take", nargs="*", type=Path, default=[], help="folders of experts made elsewhere")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    train(minutes=asked.minutes, others=asked.take)


if __name__ == "__main__":
    main()
