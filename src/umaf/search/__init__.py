"""Search: numbers optimised against a score, without gradients."""

from __future__ import annotations

from umaf.search.cem import CrossEntropy, Found, cross_entropy
from umaf.search.cma import Cma, cma_es

__all__ = ["Cma", "CrossEntropy", "Found", "cma_es", "cross_entropy"]
