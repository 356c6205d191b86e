"""Published sets that only measure: reasoning/<set>, instruct/<set>, pairs/<set> and lm/<corpus> of a data folder."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from umaf.errors import TaskError
from umaf.tasks.measured import Answers, Choices, Corpus, Pair, Pairs, Question, pieces_of

ROOTS = ("reasoning", "instruct", "pairs", "lm")
PROGRAMS = ("mbpp",)
"""Sets whose answers are programs: running those is for the rewards of experts."""

_LETTER = re.compile(r"^\s*\(?([A-Z])\)\s*")


def names(folder: Path) -> list[str]:
    """List the sets of a data folder, sorted by name."""
    found = [
        f"{root}/{path.parent.name}"
        for root in ROOTS
        for path in sorted(folder.glob(f"{root}/*/test.*"))
        if path.parent.name not in PROGRAMS
    ]
    return list(dict.fromkeys(found))


def read(name: str, folder: Path) -> Choices | Answers | Pairs | Corpus:
    """Read the test texts of a set.

    Args:
        name: "reasoning/arc_easy", "instruct/self_instruct", "pairs/blimp", "lm/darwin".
        folder: the data folder.

    Raises:
        TaskError: no such set, or a row that is not what its layout says.
    """
    root, _, kind = name.partition("/")
    if name not in names(folder):
        raise TaskError(
            f"Task {name!r} was asked for, but {folder} does not hold it or it needs programs to be run; "
            "list the tasks with `umaf evaluate --list`."
        )
    if root == "lm":
        return Corpus(name, pieces_of((folder / name / "test.txt").read_text(encoding="utf-8")), f"lm/{kind}")
    try:
        lines = (folder / name / "test.jsonl").read_text(encoding="utf-8").splitlines()
        return _made(name, [json.loads(line) for line in lines if line.strip()])
    except (OSError, KeyError, TypeError, ValueError) as problem:
        raise TaskError(
            f"Task {name!r} was asked for, but {folder / name / 'test.jsonl'} could not be read "
            f"({type(problem).__name__}: {problem}); compare its rows with docs/how-to/data.md."
        ) from problem


def text_file(path: str | Path) -> Corpus:
    """Read a plain text file in UTF-8 as a corpus.

    Raises:
        TaskError: it cannot be read, or holds nothing.
    """
    try:
        pieces = pieces_of(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise TaskError(
            f"The text {path} was asked for, but it cannot be read as UTF-8 ({problem}); name a plain text file."
        ) from problem
    if not pieces:
        raise TaskError(f"The text {path} was asked for, but it is empty; name a file with text in it.")
    return Corpus(f"text:{Path(path).name}", pieces, source="a text file")


def _made(name: str, rows: list[dict[str, Any]]) -> Choices | Answers | Pairs:
    if name.startswith("pairs/"):
        pairs = tuple(Pair(row["good"], row["bad"], row.get("term", row.get("field", ""))) for row in rows)
        return Pairs(name, pairs, source=name)
    if all("choices" in row for row in rows):
        return Choices(name, tuple(_question(row) for row in rows), source=name)
    answers = [str(row.get("final", row["answer"])) for row in rows]
    if set(answers) == {"yes", "no"}:
        questions = [
            Question(row["question"], ("yes", "no"), ("yes", "no").index(right))
            for row, right in zip(rows, answers, strict=True)
        ]
        return Choices(name, tuple(questions), source=name)
    texts = tuple((str(row["question"]), right) for row, right in zip(rows, answers, strict=True))
    if all(re.fullmatch(r"-?[\d,]*\.?\d+", right) for right in answers):
        # A rationale comes before the number where a model was taught to write one.
        tokens = 128 if any("final" in row for row in rows) else 24
        return Answers(name, texts, "number", tokens=tokens, source=name)
    return Answers(name, texts, "overlap", tokens=64, source=name)


def _question(row: dict[str, Any]) -> Question:
    """Read one question; choices written "A)40.8" are asked as "40.8", and their letter finds the right one."""
    choices = [str(choice) for choice in row["choices"]]
    letters = [match[1] if (match := _LETTER.match(choice)) else None for choice in choices]
    spoken = tuple(_LETTER.sub("", choice) for choice in choices) if None not in letters else tuple(choices)
    answer = str(row["answer"])
    where: list[Any] = list(spoken) if answer in spoken else choices if answer in choices else letters
    if answer not in where:
        raise ValueError(f"the answer {answer!r} is none of {', '.join(choices)}")
    return Question(str(row["question"]), spoken, where.index(answer))
