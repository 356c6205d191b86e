"""The bank of capabilities: which tasks train, which validate, which are held out, and the tasks cut from classes.

The split lives in ``splits.json``, written once by ``python -m zoo.split`` before anything was trained. Nothing
held out (a capability, a class, a text) may enter any training; `training_examples` is the only door for that.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from umaf.errors import TaskError
from umaf.tasks import words
from umaf.tasks.task import Example, Task

SPLITS = ("train", "validation", "heldout")


@functools.cache
def splits() -> dict:
    """Read the split file (see `zoo/split.py` for how it was made)."""
    return json.loads((Path(__file__).parent / "splits.json").read_text(encoding="utf-8"))


def names(split: str | None = None, kind: str | None = None) -> list[str]:
    """List capabilities of the bank: without arguments only those cut from classes (they are no files).

    Args:
        split: "train", "validation" or "heldout".
        kind: "classification" or "function"; both when not given.

    Example:
        >>> names("heldout", "function")[:2]
        ['fv/capitalize_first_letter', 'fv/lowercase_first_letter']
    """
    cuts = [cut["name"] for cut in splits()["cuts"] if split in (None, cut["split"])]
    if split is None:
        return cuts
    if split not in SPLITS:
        raise TaskError(f"The bank has the splits {', '.join(SPLITS)}; {split!r} was asked for.")
    classification = splits()["classification"][split] + cuts
    functions = splits()["functions"][split]
    return {"classification": classification, "function": functions}.get(
        kind or "", classification + functions
    )


def cut(name: str, read: Callable[[str], Task]) -> Task:
    """Cut a task out of a published set: groups of its classes become the labels.

    Args:
        name: a name of `names()`.
        read: loads a published set by name.
    """
    plan = next(plan for plan in splits()["cuts"] if plan["name"] == name)
    return regroup(read(plan["set"]), name, plan["cue"], plan["groups"])


def regroup(task: Task, name: str, cue: str, groups: dict[str, list[str]]) -> Task:
    """Make a new task from groups of another's labels; examples of other labels leave.

    Args:
        groups: new label word -> labels of `task` (as published, with underscores, or spoken).

    Example:
        >>> from umaf.tasks.task import Example, Task
        >>> few = (Example("hi", "greeting"), Example("bye", "goodbye"), Example("gas?", "gas"))
        >>> old = Task("x", "classification", ("greeting", "goodbye", "gas"), "intent", few, few, few, "", "")
        >>> regroup(old, "chat", "match", {"yes": ["greeting", "goodbye"], "no": ["gas"]}).test[1].answer
        'yes'
    """
    word = {words.spoken(task.name, label): group for group, labels in groups.items() for label in labels}

    def relabel(examples: Iterable[Example]) -> tuple[Example, ...]:
        return tuple(Example(e.text, word[e.answer]) for e in examples if e.answer in word)

    return Task(
        name, "classification", tuple(groups), cue, relabel(task.train), relabel(task.validation),
        relabel(task.test), task.source, task.licence,
    )  # fmt: skip


def heldout_texts(load: Callable[[str], Task]) -> frozenset[str]:
    """Collect every text of every held-out and validation capability, lower-case: none may train anything."""
    kept: set[str] = set()
    for split in ("heldout", "validation"):
        for name in names(split):
            task = load(name)
            kept |= {e.text.lower() for part in (task.train, task.validation, task.test) for e in part}
    return frozenset(kept)


def training_examples(name: str, load: Callable[[str], Task], forbidden: frozenset[str]) -> list[Example]:
    """Give the examples of a train capability that may be trained on.

    Args:
        name: a capability of the train split.
        load: loads a task by name.
        forbidden: the result of `heldout_texts`.

    Raises:
        TaskError: the capability is not in the train split.
    """
    if name not in names("train"):
        raise TaskError(
            f"{name!r} was asked for as training data, but the bank does not hold it in its train split."
        )
    return [example for example in load(name).train if example.text.lower() not in forbidden]
