"""Stage 3: the Latent Fusion Module."""

from __future__ import annotations

from umaf.fusion.fuse import FUSIONS, fuse
from umaf.fusion.gated import Gate, gated_weights, load_gate
from umaf.fusion.spherical import spherical
from umaf.fusion.weighted import weighted
from umaf.fusion.weights import check_weights, weights_from_similarity

__all__ = [
    "FUSIONS",
    "Gate",
    "check_weights",
    "fuse",
    "gated_weights",
    "load_gate",
    "spherical",
    "weighted",
    "weights_from_similarity",
]
