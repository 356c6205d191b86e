"""Fingerprints without a model, for tests of what is done with them."""

from __future__ import annotations

from umaf.testing import made_fingerprint as made

__all__ = ["made"]
