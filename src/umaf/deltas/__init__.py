"""Deltas: what was changed in a model, dense or as low-rank factors."""

from __future__ import annotations

from umaf.deltas.lowrank import LowRank, add, inner, joint, norm, nothing, svd, truncate

__all__ = ["LowRank", "add", "inner", "joint", "norm", "nothing", "svd", "truncate"]
