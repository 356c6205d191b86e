"""The collection that the index is measured on: experts of the zoo, trained once and kept.

    python -m benchmarks.index_experts [--minutes 60] [--take FOLDER ...]

An expert is trained briefly by `zoo/experts.py`. What other benchmarks trained by the same recipe, on the same task and
seed, can be taken over with --take. A run that was stopped goes on with the next expert.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml

from benchmarks.index_plan import Member, members, schedule, task_of
from umaf.errors import OutputError
from umaf.files import hash_texts, write_json, write_text
from zoo.experts import expert

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "out" / "index"
# What decides the weights.
SOURCES = ("src/umaf/tasks/generated/*.py", "zoo/experts.py", "constraints.txt")


def shelf() -> Path:
    """Give the folder of the experts."""
    files = sorted(path for pattern in SOURCES for path in ROOT.glob(pattern))
    return WORK / f"experts-{hash_texts(path.read_text(encoding='utf-8') for path in files)[:12]}"


def trained() -> list[Member]:
    """List the members that are there."""
    return [member for member in members() if (shelf() / member.folder).is_dir()]


def take(places: Sequence[Path]) -> int:
    """Take over experts that lie in other folders under the names of the plan; say how many."""
    taken = 0
    for member in members():
        for place in places:
            found, own = place / member.folder, shelf() / member.folder
            if found.is_dir() and not own.exists():
                own.parent.mkdir(parents=True, exist_ok=True)
                draft = own.with_name(f"{own.name}.part")
                shutil.rmtree(draft, ignore_errors=True)
                shutil.copytree(found, draft)
                draft.rename(own)
                write_json(shelf() / "taken" / f"{member.name}.json", {"from": place.name})
                taken += 1
    return taken


def write_cards() -> None:
    """Let every expert's card say what it answers, as `umaf index build` reads it; `zoo.experts` writes none."""
    for member in trained():
        path = shelf() / member.folder / "README.md"
        if not path.exists():
            known = task_of(member.task)
            told = {"umaf": {"asks": [{"cue": known.cue, "labels": list(known.labels)}]}}
            head = yaml.safe_dump({"base_model": f"zoo:{member.model}", **told}, sort_keys=False)
            write_text(path, f"---\n{head}---\n\n# {member.name}\n")


def train(*, minutes: float) -> None:
    """Train what is missing; begin no new expert after so many minutes."""
    until = time.monotonic() + 60 * minutes
    for member in members():
        if (shelf() / member.folder).is_dir() or time.monotonic() > until:
            continue
        began = time.process_time()
        try:
            expert(
                f"zoo:{member.model}",
                task_of(member.task),
                shelf(),
                seed=member.seed,
                schedule=schedule(member),
            )
        except OutputError:
            continue  # another process was quicker
        print(f"{member.name}: {time.process_time() - began:.1f} s", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Take over and train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=240.0, help="begin no new expert after this long")
    parser.add_argument("--take", nargs="*", type=Path, default=[], help="folders of experts made elsewhere")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(f"{take(asked.take)} taken over, {len(trained())} there", flush=True)
    train(minutes=asked.minutes)
    write_cards()


if __name__ == "__main__":
    main()
