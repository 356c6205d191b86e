"""Deltas: what was changed in a model, dense or as low-rank factors."""

from __future__ import annotations

from umaf.deltas.adapter import Adapter, Target, read_adapter
from umaf.deltas.difference import Change, Difference, difference
from umaf.deltas.extract import Amount, Extraction, extract_lora
from umaf.deltas.lora import Lora, lora
from umaf.deltas.lowrank import LowRank, add, inner, joint, norm, nothing, svd, truncate
from umaf.deltas.write import write_adapter

__all__ = [
    "Adapter",
    "Amount",
    "Change",
    "Difference",
    "Extraction",
    "Lora",
    "LowRank",
    "Target",
    "add",
    "difference",
    "extract_lora",
    "inner",
    "joint",
    "lora",
    "norm",
    "nothing",
    "read_adapter",
    "svd",
    "truncate",
    "write_adapter",
]
