"""Tasks of graded difficulty with answers that a program can judge, for rewards that small models can reach.

`plan.json` keeps apart the tasks that experts are trained on and the tasks that no expert has seen.
"""

from __future__ import annotations

import functools
import importlib
import json
from pathlib import Path

from umaf.errors import TaskError
from umaf.tasks.graded import sides
from umaf.tasks.task import Example

_MODULES = {
    "stories": "stories",
    "two_steps": "stories",
    "story_choice": "stories",
    "lists": "programs",
    "strings": "programs",
    "outputs": "programs",
    "choices": "choices",
    "odd_one_out": "choices",
    "kinds": "kinds",
    "moods": "kinds",
}
GRADED: dict[str, str] = {
    f"graded/{name}": f"umaf.tasks.graded.{module}:{name}" for name, module in _MODULES.items()
}
"""The name of each task -> the function that makes it, imported only when it is wanted."""


@functools.cache
def _plan() -> dict[str, dict[str, str]]:
    return json.loads((Path(__file__).parent / "plan.json").read_text(encoding="utf-8"))


def part_of_plan(part: str) -> dict[str, str]:
    """Give the tasks of one part with the reward of each.

    Args:
        part: "train" (experts are trained on these) or "unseen" (they are only ever asked).

    Raises:
        TaskError: another part.

    Example:
        >>> part_of_plan("train")["graded/stories"]
        'numeric'
    """
    if part not in _plan():
        raise TaskError(f"The graded tasks have the parts {' and '.join(_plan())}; {part!r} was asked for.")
    return dict(_plan()[part])


def reward_of(name: str) -> str | None:
    """Give the name of the reward that judges a graded task, None for any other task.

    Example:
        >>> reward_of("graded/lists"), reward_of("made/sentiment")
        ('code', None)
    """
    return {**_plan()["train"], **_plan()["unseen"]}.get(name)


def lessons_of(name: str, *, count: int, seed: int = 0) -> tuple[str, tuple[Example, ...]]:
    """Draw what a base model may be shown of a task: the word before the answers, and examples of no split.

    Raises:
        TaskError: there is no such graded task, or it has not so many different lessons.

    Example:
        >>> lessons_of("graded/kinds", count=2)[0]
        'kind'
    """
    if name not in GRADED:
        raise TaskError(
            f"Lessons of {name!r} were asked for, but graded tasks are {', '.join(sorted(GRADED))}."
        )
    module, _, function = GRADED[name].partition(":")
    graded = getattr(importlib.import_module(module), f"{function.upper()}_TASK")
    return graded.cue, sides.lessons(graded, seed, count)
