"""The one data door: a named task from a folder, from the hub, or from the project's own grammars.

Looked for in this order: ``made/...`` and ``graded/...`` are generated here, and what another package adds by an
entry point in the group ``umaf.tasks`` is made there; ``hub:org/dataset`` comes through `datasets`; a task of the
bank (``derived/...`` and regroupings of held-out classes) is cut from a published set; anything else is read from
the data folder (the argument, the environment's UMAF_DATA, or ``shared/data`` beside the checkout).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np

from umaf import seeds
from umaf.errors import TaskError, did_you_mean
from umaf.registry import Registry
from umaf.tasks import bank, folder, hub, published, reasoning
from umaf.tasks.generated import GENERATED, measures
from umaf.tasks.graded import GRADED
from umaf.tasks.measured import Measured
from umaf.tasks.task import Example, Task

# A name stands for a function that makes the task from a seed.
TASKS = Registry("task", "umaf.tasks", {**GENERATED, **GRADED})

CHECKOUT = Path(__file__).resolve().parents[3]


def find_data(explicit: str | Path | None = None) -> Path | None:
    """Find the folder of real data, or None where there is none.

    Raises:
        TaskError: a folder was named (as argument or in UMAF_DATA) that does not hold tasks.
    """
    named = explicit or os.environ.get("UMAF_DATA")
    if named:
        if not any((Path(named) / kind).is_dir() for kind in ("text", "icl")):
            raise TaskError(
                f"The data folder {named} was asked for, but it has neither text/ nor icl/ in it; "
                "name a folder laid out as docs/how-to/data.md says."
            )
        return Path(named)
    beside = CHECKOUT.parent / "shared" / "data"
    return beside if (beside / "text").is_dir() else None


def list_tasks(data: str | Path | None = None) -> list[str]:
    """List every task that can be loaded here: those that are made always, the real ones where data is found."""
    found = find_data(data)
    return TASKS.names() + (folder.names(found) + bank.names() if found else [])


def load_task(name: str, *, data: str | Path | None = None, limit: int | None = None, seed: int = 0) -> Task:
    """Load a task by name.

    Args:
        name: "made/sentiment", "snips7", "fv/antonym", "derived/clinc150/003", "hub:org/dataset".
        data: the data folder; found as `find_data` says when not given.
        limit: keep at most this many training examples, chosen by the seed.
        seed: generates (for made/ tasks) and chooses (for limit).

    Raises:
        TaskError: no such task, or no data folder where one is needed.

    Example:
        >>> load_task("made/sentiment").labels
        ('positive', 'negative')
    """
    task = _load(name, find_data(data), seed)
    if limit is None or limit >= len(task.train):
        return task
    chosen = np.random.default_rng(seeds.derive(seed, "limit", name)).permutation(len(task.train))[:limit]
    return dataclasses.replace(task, train=tuple(task.train[i] for i in sorted(chosen)))


def list_measured(data: str | Path | None = None) -> list[str]:
    """List the sets that only measure: the generated ones always, the published ones where data is found."""
    found = find_data(data)
    return sorted(measures.NAMES) + (published.names(found) if found else [])


def load_measured(name: str, *, data: str | Path | None = None, seed: int = 0) -> Measured:
    """Load anything a model can be scored on: a task, or a set that only measures.

    Args:
        name: a task's name, or "made/agreement", "reasoning/arc_easy", "instruct/self_instruct", "pairs/blimp",
            "lm/darwin", or "text:FILE" for a plain text file.
        data: the data folder; found as `find_data` says when not given.
        seed: generates the made/ ones.

    Raises:
        TaskError: no such task, or no data folder where one is needed.

    Example:
        >>> load_measured("made/agreement").pairs[1].group
        'person'
    """
    if name in measures.NAMES:
        return measures.measure(name, seed=seed)
    if name.startswith("text:"):
        return published.text_file(name.removeprefix("text:"))
    if name.partition("/")[0] not in published.ROOTS:
        return load_task(name, data=data, seed=seed)
    found = find_data(data)
    if found is None:
        raise TaskError(
            f"Task {name!r} was asked for, but no folder of real data was found; name one with --data or "
            f"UMAF_DATA, or use a generated one such as {measures.NAMES[0]}."
        )
    known = published.names(found)
    if name not in known:
        raise TaskError(
            f"Task {name!r} was asked for, but {found} does not hold it; list the tasks with "
            f"`umaf evaluate --list`.{did_you_mean(name, known)}"
        )
    return published.read(name, found)


def _load(name: str, data: Path | None, seed: int) -> Task:
    own = TASKS.names()
    if name in own:
        return cast(Callable[[int], Task], TASKS.get(name))(seed)
    if name.startswith("hub:"):
        return hub.read(name.removeprefix("hub:"))
    if name.startswith(("made/", "graded/")):
        raise TaskError(
            f"Task {name!r} was asked for, but no grammar makes it; generated tasks are {', '.join(own)}."
            f"{did_you_mean(name, own)}"
        )
    if data is None:
        raise TaskError(
            f"Task {name!r} was asked for, but no folder of real data was found; name one with --data or "
            "UMAF_DATA, or use a generated task such as made/sentiment."
        )
    if name in bank.names():
        return bank.cut(name, lambda source: folder.read(source, data))
    if name in reasoning.REWARDS:
        return reasoning.read(name, data)
    if name not in folder.names(data):
        near = did_you_mean(name, folder.names(data) + bank.names() + own)
        raise TaskError(
            f"Task {name!r} was asked for, but {data} does not hold it;{near} "
            "list the tasks with `umaf evaluate --list`."
        )
    return folder.read(name, data)


def texts(examples: tuple[Example, ...]) -> tuple[str, ...]:
    """Give the texts of examples, without their answers: what a probe may see."""
    return tuple(example.text for example in examples)
