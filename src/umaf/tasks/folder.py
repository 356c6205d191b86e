"""Read the tasks of one data folder: text/<task>/{train,test}.jsonl with labels.json, icl/<set>/<task>.jsonl.

The published names are used for classification tasks; functions carry the initials of their set:
``fv/antonym`` (function vectors) and ``ii/sum`` (instruction induction).
"""

from __future__ import annotations

import json
from pathlib import Path

from umaf import seeds
from umaf.errors import TaskError
from umaf.tasks import words
from umaf.tasks.task import Example, Task

SETS = {"fv": "function_vectors", "ii": "instruction_induction"}
VALIDATION_SHARE = 0.1


def names(folder: Path) -> list[str]:
    """List the tasks that a data folder holds, sorted."""
    found = [path.parent.name for path in folder.glob("text/*/train.jsonl")]
    for initials, name in SETS.items():
        found += [f"{initials}/{path.stem}" for path in folder.glob(f"icl/{name}/*.jsonl")]
    return sorted(found)


def read(name: str, folder: Path) -> Task:
    """Read one named task.

    Raises:
        TaskError: no such task in the folder, or a file that is not what its layout says.
    """
    try:
        return _function(name, folder) if "/" in name else _classification(name, folder)
    except (OSError, KeyError, json.JSONDecodeError) as problem:
        raise TaskError(
            f"Task {name!r} was asked for, but its files in {folder} could not be read ({problem}); "
            "list the tasks there with `umaf evaluate --list`."
        ) from problem


def split_off(examples: list[Example], name: str) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Part examples into train and validation by a hash of each text, so that no order can change it."""
    train, validation = [], []
    for example in examples:
        share = seeds.derive(0, "validation", name, example.text.lower()) % 1000 / 1000
        (validation if share < VALIDATION_SHARE else train).append(example)
    return tuple(train), tuple(validation)


def _rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _text(row: dict) -> str:
    return row["text"] if "text" in row else f"{row['text_a']} / {row['text_b']}"


def _classification(name: str, folder: Path) -> Task:
    home = folder / "text" / name
    labels = json.loads((home / "labels.json").read_text(encoding="utf-8"))
    spoken = tuple(words.spoken(name, label) for label in labels)

    def examples(split: str) -> list[Example]:
        return [Example(_text(row), spoken[row["label"]]) for row in _rows(home / f"{split}.jsonl")]

    test = tuple(examples("test"))
    seen = {example.text.lower() for example in test}
    # Some published splits share exact texts between train and test; those leave training.
    kept = [example for example in examples("train") if example.text.lower() not in seen]
    train, validation = split_off(kept, name)
    source, licence = "the task's data folder", "see the data folder's README"
    return Task(name, "classification", spoken, words.cue(name), train, validation, test, source, licence)


def _function(name: str, folder: Path) -> Task:
    initials, stem = name.split("/", 1)
    rows = _rows(folder / "icl" / SETS[initials] / f"{stem}.jsonl")
    test = tuple(_pair(row) for row in rows if row["split"] == "test")
    seen = {example.text.lower() for example in test}
    kept = [_pair(row) for row in rows if row["split"] == "train"]
    train, validation = split_off([e for e in kept if e.text.lower() not in seen], name)
    source, licence = SETS[initials], "see the data folder's README"
    return Task(name, "function", (), words.cue(name), train, validation, test, source, licence)


def _pair(row: dict) -> Example:
    if "input" in row:
        return Example(str(row["input"]), str(row["output"]))
    if "cause" in row:
        return Example(row["cause"], row["effect"])
    return Example(", ".join(row["items"]), row["concept"])
