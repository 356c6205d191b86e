"""Checkpoints: weight files read lazily and written in place."""

from __future__ import annotations

from umaf.checkpoints.checkpoint import Checkpoint, open_checkpoint
from umaf.checkpoints.draft import begin, check_place, draft_of, finish
from umaf.checkpoints.dtypes import dtype_name, size_of, torch_dtype
from umaf.checkpoints.headers import Entry
from umaf.checkpoints.identity import identity
from umaf.checkpoints.layout import Layout, Slot, lay_out
from umaf.checkpoints.writer import Slots, Writer

__all__ = [
    "Checkpoint",
    "Entry",
    "Layout",
    "Slot",
    "Slots",
    "Writer",
    "begin",
    "check_place",
    "draft_of",
    "dtype_name",
    "finish",
    "identity",
    "lay_out",
    "open_checkpoint",
    "size_of",
    "torch_dtype",
]
