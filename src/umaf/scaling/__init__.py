"""Stage 2: the Size Interpolator."""

from __future__ import annotations

from umaf.scaling.film import Film, ends, load_film
from umaf.scaling.interpolator import SCALINGS, scale
from umaf.scaling.ridge import Ridge, fit_ridge, load_ridge
from umaf.scaling.size import Size, size_of

__all__ = [
    "SCALINGS",
    "Film",
    "Ridge",
    "Size",
    "ends",
    "fit_ridge",
    "load_film",
    "load_ridge",
    "scale",
    "size_of",
]
