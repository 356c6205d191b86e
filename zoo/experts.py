"""Experts: models of the zoo (or any other) fine-tuned on the labels of one task, whole.

They are the sources of transfers. Encoders get a classifier head of their own; everything else learns to answer
the task's prompt. Built by command and cached, never shipped.
"""

from __future__ import annotations

from pathlib import Path

from umaf.files import whole_folder
from umaf.generation.finetune import finetune
from umaf.generation.goals import labelled_goal
from umaf.generation.train import Schedule
from umaf.models import open_model
from umaf.tasks.task import Task

SCHEDULE = Schedule(steps=250, rate=1.5e-3, batch_size=16)
# Encoders with the norm behind the block, such as BERT, do not always come through a rate that high.
ENCODER = Schedule(steps=250, rate=5e-4, batch_size=16)
# A larger model needs a smaller rate and, on two cores, fewer steps.
LARGE = Schedule(steps=100, rate=2e-4, batch_size=16)


def expert(base: str, task: Task, cache: Path, *, seed: int = 0, schedule: Schedule | None = None) -> Path:
    """Fine-tune a base on a task, or find that it was done.

    Args:
        base: hub id, folder, or name in the zoo.
        task: labels or answers to learn.
        cache: where experts are kept.
        seed: initial head and order of examples.
        schedule: how long and how fast; by the kind and size of the base when not given.

    Returns:
        The expert's folder, loadable by its plain `transformers` class.
    """
    folder = cache / f"{Path(base).name.replace(':', '-')}--{task.name.replace('/', '-')}--{seed}"
    if folder.exists():
        return folder
    model = open_model(base)
    goal = labelled_goal([e.text for e in task.train], task.cue, task.labels, [e.answer for e in task.train])
    small = ENCODER if model.kind == "encoder" else SCHEDULE
    chosen = schedule or (LARGE if model.parameters > 1e7 else small)
    tuned = finetune(model, goal, schedule=chosen, seed=seed, truncate=True)
    with whole_folder(folder) as partial:
        tuned.net.save_pretrained(partial)
        tuned.tokenizer.save_pretrained(partial)
    return folder
