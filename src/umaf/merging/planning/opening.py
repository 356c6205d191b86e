"""The models of a recipe, opened: headers are read and checked, weights are not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from umaf.checkpoints import Checkpoint, open_checkpoint
from umaf.deltas import lora
from umaf.merging.planning.jobs import Opened
from umaf.merging.recipes.reference import Ref

Open: TypeAlias = Callable[[Ref], Checkpoint]
"""What opens a model without its adapters."""


def open_ref(ref: Ref, *, allow_pickle: bool = False) -> Checkpoint:
    """Open the model that a recipe names, without its adapters.

    Raises:
        CheckpointError: its files are missing, cut short, or do not belong together.
    """
    return open_checkpoint(ref.path, revision=ref.revision, allow_pickle=allow_pickle)


def open_models(refs: Iterable[Ref], open: Open) -> tuple[Opened, ...]:
    """Open every model, each checkpoint once however many adapters are put on it.

    Args:
        refs: models with their adapters.
        open: opens one without.

    Raises:
        CheckpointError: files are missing, cut short, or do not belong together.
        AdapterError: an adapter does not fit its model.
    """
    opened: dict[Ref, Checkpoint] = {}
    models = []
    for ref in refs:
        bare = ref.model_copy(update={"lora": ()})
        if bare not in opened:
            opened[bare] = open(bare)
        loras = tuple(lora(one.path, opened[bare], revision=one.revision) for one in ref.lora)
        models.append(Opened(ref, opened[bare], loras))
    return tuple(models)
