"""Whom the trained extractor is trained and judged on: experts of the zoo, by the bank's own split."""

from __future__ import annotations

from benchmarks.index_plan import DESIGN, HELDOUT, LARGE, SMALL, Member
from benchmarks.index_plan import schedule as brief
from umaf.generation.train import Schedule
from umaf.models import Model
from umaf.training.entries import EntryCard

# In the order they are built: groups of intents in turn with groupings into yes and no, of both sources.
TRAIN = (
    *(name for name in DESIGN if "validation" not in name),
    *(
        f"derived/{source}/train-{number:03d}"
        for number in range(4, 96)
        for source in (("clinc150", "banking77") if number % 3 == 0 else ("clinc150",))
    ),
)
VALIDATION = (
    *(name for name in DESIGN if "validation" in name),
    *(f"derived/clinc150/validation-{number:03d}" for number in (0, 4, 5, 7, 8, 10)),
    *(f"derived/banking77/validation-{number:03d}" for number in (0, 1, 2)),
)
EVERY_LARGE = 4
"""Of every so many capabilities the larger models learn one, too."""


def split_of(task: str) -> str:
    """Give the split that a capability belongs to; the six generated kinds of the index's design train."""
    if task in HELDOUT:
        return "heldout"
    return "validation" if task in VALIDATION else "train"


def members() -> list[Member]:
    """List the experts in the order they are built: every stop leaves whole capabilities."""
    found: list[Member] = []
    validation = list(VALIDATION)
    for place, task in enumerate(TRAIN):
        found += _of(task, large=place % EVERY_LARGE == 0)
        if place % 4 == 3 and validation:
            task = validation.pop(0)
            found += _of(task, large=len(validation) % EVERY_LARGE == 0)
    for task in validation:
        found += _of(task, large=True)
    return found


def schedule(member: Member) -> Schedule | None:
    """Give a training as short as the index's; the larger BERT stays at chance at its rate."""
    if member.model == "bert-5m":
        return Schedule(steps=100, rate=5e-4, batch_size=16)
    return brief(member)


def _of(task: str, *, large: bool) -> list[Member]:
    return [Member(model, task, 0) for model in (*SMALL, *(LARGE if large else ()))]


def card_of(member: Member, base: Model) -> EntryCard:
    """Say where an expert comes from; the architecture is the family, whatever the size."""
    return EntryCard(
        capability=member.task,
        split=split_of(member.task),
        base=member.model,
        architecture=member.architecture,
        parameters=base.parameters,
        layers=base.layers,
        width=base.width,
        seed=member.seed,
    )
