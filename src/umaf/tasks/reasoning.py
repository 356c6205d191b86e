"""Published sets as tasks with a reward: reasoning/gsm8k, arc_easy, mbpp, … of a data folder, to train experts on.

`published.py` reads the test texts of the same sets to measure with; here they come as tasks with all their splits. A
set without a train file (SVAMP, whose official use is as a test) has an empty train split.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from umaf.errors import TaskError
from umaf.tasks.folder import split_off
from umaf.tasks.task import Example, Task

LETTERS = "ABCDEFGH"
REWARDS = {
    "reasoning/addsub": "numeric",
    "reasoning/arc_challenge": "exact",
    "reasoning/arc_easy": "exact",
    "reasoning/commonsenseqa": "exact",
    "reasoning/gsm8k": "numeric",
    "reasoning/mbpp": "code",
    "reasoning/multiarith": "numeric",
    "reasoning/openbookqa": "exact",
    "reasoning/svamp": "numeric",
}
"""The sets that can be had as tasks, with the reward of each."""


def read(name: str, folder: Path) -> Task:
    """Read a set as a task.

    A question with choices shows them as "A water, B wine" and is answered by a letter; a sum by its number; MBPP by a
    program of one line, judged by its tests.

    Args:
        name: one of `REWARDS`.
        folder: the data folder.

    Raises:
        TaskError: the folder does not hold the set, or a row is not what its layout says.
    """
    home = folder / name
    if not (home / "test.jsonl").is_file():
        raise TaskError(
            f"Task {name!r} was asked for, but {folder} does not hold it; get the set, or choose another."
        )
    try:
        parts = {split: _rows(home / f"{split}.jsonl") for split in ("train", "test")}
    except (OSError, KeyError, TypeError, ValueError) as problem:
        raise TaskError(
            f"Task {name!r} was asked for, but its files in {home} could not be read ({type(problem).__name__}: "
            f"{problem}); compare its rows with docs/how-to/data.md."
        ) from problem
    seen = {one.text.lower() for one in parts["test"]}
    train, validation = split_off([one for one in parts["train"] if one.text.lower() not in seen], name)
    cue = {"exact": "choice", "numeric": "answer", "code": "code"}[REWARDS[name]]
    source, licence = name, "see the data folder's README"
    return Task(name, "function", (), cue, train, validation, tuple(parts["test"]), source, licence)


def _rows(path: Path) -> list[Example]:
    if not path.is_file():
        return []
    return [
        _example(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
    ]


def _example(row: dict[str, Any]) -> Example:
    """Read one row.

    Example:
        >>> _example({"question": "which is hot?", "choices": ["ice", "fire"], "answer": "fire"})
        Example(text='which is hot? A ice, B fire', answer='B', tests=())
    """
    question = str(row["question"]).strip()
    if "tests" in row:
        return Example(question, str(row["answer"]), tuple(map(str, row["tests"])))
    if "choices" in row:
        choices = [str(choice) for choice in row["choices"]]
        shown = ", ".join(f"{letter} {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
        return Example(f"{question} {shown}", LETTERS[choices.index(str(row["answer"]))])
    return Example(question, str(row.get("final", row["answer"])))
