"""Stores: experts in few bytes, from which each one comes back."""

from __future__ import annotations

from umaf.merging.stores.packer import PACKERS, Packer, packer_of

__all__ = ["PACKERS", "Packer", "packer_of"]
