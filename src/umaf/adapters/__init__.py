"""Adapters: low-rank updates as tensors, as PEFT folders, and as hooks."""

from __future__ import annotations

from umaf.adapters.apply import attach, factors_of, is_stacked, load_adapter, lora_config, sharing_copy
from umaf.adapters.cores import Basis, cores
from umaf.adapters.factors import Factors, combine, lora_modules, norms, truncate, weight_of
from umaf.adapters.lora import read_factors, write_lora

__all__ = [
    "Basis",
    "Factors",
    "attach",
    "combine",
    "cores",
    "factors_of",
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
