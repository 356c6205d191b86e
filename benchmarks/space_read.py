"""What each expert shows of its capability on probes that are the same for all, read once and kept.

    python -m benchmarks.space_read [--minutes 60] [--take FOLDER ...] [--index FOLDER]

With probes of its own an untouched base already tells the capability, by what the probes are about; with common ones
all that differs between two experts of a base is what they learned. Experts of the index were read on the same probes
(`benchmarks/index_read.py`), and those readings are taken as they are. "own" reads held-out experts on their own probes
all the same, because that is how one model is fingerprinted; the base beside them says what the probes give away.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks import index_plan
from benchmarks.index_plan import Member, task_of
from benchmarks.index_read import base_of, probes
from benchmarks.space_experts import WORK, place_of
from benchmarks.space_plan import members
from umaf.extraction.describe import describe
from umaf.extraction.inputs import Inputs, read_inputs
from umaf.models import Model, open_model
from umaf.readout import label_scores

OWN = 64
"""Probes of a capability's own."""
SCORED = 64
HOME = WORK / "read"


def measure(member: Member, model: Model) -> dict[str, Tensor]:
    """Read one expert beside its base on the common probes."""
    _, before = base_of(member.model)
    own = read_inputs(model, probes(), base=None)
    both = Inputs(own.coordinates, own.gram, before.coordinates, before.gram, own.depths, own.normalisation)
    return {
        "description": describe(both),
        "shift": both.shift().half(),
        "score": torch.tensor(_accuracy(model, member.task)),
    }


def read(*, minutes: float, others: Sequence[Path], index: Path | None) -> None:
    """Read the experts that are there and were not read; begin no new one after so many minutes."""
    until = time.monotonic() + 60 * minutes
    for member, place in _missing(others, index):
        if time.monotonic() > until:
            return
        began = time.process_time()
        kept = measure(member, open_model(place))
        HOME.mkdir(parents=True, exist_ok=True)
        draft = HOME / f"{member.name}.part"
        save_file({name: value.contiguous() for name, value in kept.items()}, draft)
        draft.rename(HOME / f"{member.name}.safetensors")
        spent = time.process_time() - began
        print(f"{member.name}: {float(kept['score']):.3f}, {spent:.1f} s", flush=True)


def collection(index: Path | None = None) -> dict[Member, dict[str, Tensor]]:
    """Read everything back: train, validation and held-out experts, in the order of the plans."""
    found = {}
    for member in dict.fromkeys((*members(), *index_plan.members())):
        path = _reading(member, index)
        if path is not None:
            kept = load_file(path)
            found[member] = {name: kept[name] for name in ("description", "shift", "score")}
    return found


def learned(member: Member, score: float) -> bool:
    """Say whether an expert learned its task: 15 points above chance, on texts it was not trained on."""
    return score > 1 / len(task_of(member.task).labels) + 0.15


def _missing(others: Sequence[Path], index: Path | None) -> Iterator[tuple[Member, Path]]:
    """List what was trained and not read."""
    for member in members():
        place = place_of(member, others)
        if place is not None and _reading(member, index) is None:
            yield member, place


def _reading(member: Member, index: Path | None) -> Path | None:
    places = [HOME, *([index] if index else [])]
    paths = [place / f"{member.name}.safetensors" for place in places]
    return next((path for path in paths if path.is_file()), None)


def _accuracy(model: Model, task: str) -> float:
    known = task_of(task)
    asked = (index_plan.scored(task) or index_plan.queries(task))[:SCORED]
    scores = label_scores(model, [e.text for e in asked], known.labels, known.cue, truncate=True)
    right = torch.tensor([known.labels.index(e.answer) for e in asked])
    return float((scores.argmax(1) == right).float().mean())


def main(arguments: Sequence[str] | None = None) -> None:
    """Read."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=240.0, help="begin no new expert after this long")
    parser.add_argument("--take", nargs="*", type=Path, default=[], help="folders of experts made elsewhere")
    parser.add_argument("--index", type=Path, help="folder of what the index read")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    read(minutes=asked.minutes, others=asked.take, index=asked.index)


if __name__ == "__main__":
    main()
