"""What each expert of the collection says to the texts that held-out tasks are searched by, read once and kept."""

from __future__ import annotations

import functools
import time

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.index_experts import shelf, trained
from benchmarks.index_plan import Member, task_of
from benchmarks.index_read import asked, home
from umaf.models import open_model
from umaf.readout import label_scores


@functools.cache
def said(member: Member) -> Tensor:
    """Give an expert's log-probabilities of its own labels, `[text, label]`, task by task as `asked` has the texts."""
    path = home() / "said" / f"{member.name}.safetensors"
    if not path.exists():
        known = task_of(member.task)
        model = open_model(shelf() / member.folder)
        scores = label_scores(model, asked(), known.labels, known.cue, truncate=True, batch_size=32)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".part")
        save_file({"said": scores.contiguous()}, draft)
        draft.rename(path)
    return load_file(path)["said"]


def hear_all(*, minutes: float) -> None:
    """Read who was not read; begin with no new one after so many minutes."""
    until = time.monotonic() + 60 * minutes
    torch.set_num_threads(1)
    for member in trained():
        if time.monotonic() > until:
            return
        said(member)
