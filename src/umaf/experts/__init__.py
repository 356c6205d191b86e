"""Experts: singular-value multipliers of a base, trained, stored, mixed and exported."""

from __future__ import annotations

from umaf.experts.attach import attached
from umaf.experts.bound import bounded, unbounded
from umaf.experts.count import Count, count, from_config
from umaf.experts.decompose import Factored, base_identity, decompose, svf_modules
from umaf.experts.expert import (
    Expert,
    ExpertCard,
    check_expert,
    identity_expert,
    load_expert,
    new_card,
    ranks_of,
    read_card,
    save_expert,
)
from umaf.experts.export import Exported, compress, merged, to_lora
from umaf.experts.mix import add, mix, mix_rows, modules_of, negate, scale

__all__ = [
    "Count",
    "Expert",
    "ExpertCard",
    "Exported",
    "Factored",
    "add",
    "attached",
    "base_identity",
    "bounded",
    "check_expert",
    "compress",
    "count",
    "decompose",
    "from_config",
    "identity_expert",
    "load_expert",
    "merged",
    "mix",
    "mix_rows",
    "modules_of",
    "negate",
    "new_card",
    "ranks_of",
    "read_card",
    "save_expert",
    "scale",
    "svf_modules",
    "to_lora",
    "unbounded",
]
