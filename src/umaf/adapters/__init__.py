"""Adapters: low-rank updates as tensors, as PEFT folders, and as hooks."""

from __future__ import annotations

from umaf.adapters.cores import Basis, cores
from umaf.adapters.factors import Factors, combine, lora_modules, norms, truncate, weight_of
from umaf.adapters.lora import is_stacked, load_adapter, lora_config, read_factors, sharing_copy, write_lora

__all__ = [
    "Basis",
    "Factors",
    "combine",
    "cores",
    "is_stacked",
    "load_adapter",
    "lora_config",
    "lora_modules",
    "norms",
    "read_factors",
    "sharing_copy",
    "truncate",
    "weight_of",
    "write_lora",
]
