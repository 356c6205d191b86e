"""What a quickstart works with: tasks, and experts that learn them on the spot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from umaf.generation.finetune import SCHEDULE, finetune
from umaf.generation.goals import Goal, labelled_goal
from umaf.generation.sources import Source
from umaf.models import Model, open_model
from umaf.quickstart.plan import Plan
from umaf.tasks.door import load_task, texts
from umaf.tasks.task import Task

Say = Callable[[str], object]


@dataclass(frozen=True)
class Expert:
    """A model that has learned one capability, with the model it was before.

    Attributes:
        model: the fine-tuned model.
        base: what it was fine-tuned from.
        task: what it learned, its training texts cut to the plan's number.
        short: the capability's short name.
        source: whether it gives its capability; the others only have a fingerprint.
    """

    model: Model
    base: Model
    task: Task
    short: str
    source: bool


def make_experts(plan: Plan, say: Say) -> list[Expert]:
    """Fine-tune every base on every capability, sources first.

    Only the expert of a capability's own base gives it; those of the other bases are there to be compared with.
    """
    opened = {one.base: open_model(one.base, device=plan.device, dtype=plan.dtype) for one in plan.moved}
    pairs = [(one, base) for one in plan.moved for base in opened]
    pairs.sort(key=lambda pair: pair[0].base != pair[1])
    tasks = {one.task: load_task(one.task, limit=plan.labelled, seed=plan.seed) for one in plan.moved}
    schedule = replace(SCHEDULE, steps=plan.expert_steps)
    experts = []
    for number, (one, base) in enumerate(pairs, start=1):
        task = tasks[one.task]
        name = f"{kind_of(opened[base])} · {one.short}"
        say(f"fine-tune an expert, {number} of {len(pairs)}: {name}")
        model = finetune(opened[base], learned(task), schedule=schedule, seed=plan.seed)
        experts.append(Expert(replace(model, name=name), opened[base], task, one.short, one.base == base))
    return experts


def learned(task: Task) -> Goal:
    """Give what fine-tuning on a task's labels aims at."""
    return labelled_goal(texts(task.train), task.cue, task.labels, [example.answer for example in task.train])


def sources_of(experts: Sequence[Expert], plan: Plan) -> list[Source]:
    """Give the experts that move their capability, with probes: training texts, without their labels."""
    return [
        Source(
            expert.model,
            texts(expert.task.train)[: plan.probes],
            expert.task.cue,
            # A classifier brings its own label words along.
            () if expert.model.head == "classifier" else expert.task.labels,
            base=expert.base,
        )
        for expert in experts
        if expert.source
    ]


def kind_of(model: Model) -> str:
    """Name a model's architecture as people write it.

    Example:
        >>> NAMES["llama"]
        'LLaMA'
    """
    kind = str(model.config.model_type)
    return NAMES.get(kind, kind)


NAMES = {"bert": "BERT", "gpt2": "GPT-2", "llama": "LLaMA", "t5": "T5", "mixtral": "Mixtral"}
