"""Mathematics on tensors: ridge, procrustes, CKA, low rank, whitening."""

from __future__ import annotations

from umaf.tensors.cka import cka
from umaf.tensors.lowrank import truncate, truncate_weighted
from umaf.tensors.procrustes import Rotation, procrustes
from umaf.tensors.ridge import ridge, ridge_from_moments
from umaf.tensors.whiten import standardise, whitener

__all__ = [
    "Rotation",
    "cka",
    "procrustes",
    "ridge",
    "ridge_from_moments",
    "standardise",
    "truncate",
    "truncate_weighted",
    "whitener",
]
