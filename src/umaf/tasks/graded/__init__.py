"""Tasks of graded difficulty with answers that a program can judge, for rewards that small models can reach.

`plan.json` keeps apart the tasks that experts are trained on and the tasks that no expert has seen.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

from umaf.errors import TaskError

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
