"""Stage 3: the Latent Fusion Module."""

from __future__ import annotations

from umaf.fusion.fuse import FUSIONS, fuse
from umaf.fusion.spherical import spherical
from umaf.fusion.weighted import weighted
from umaf.fusion.weights import check_weights, weights_from_similarity

__all__ = ["FUSIONS", "check_weights", "fuse", "spherical", "weighted", "weights_from_similarity"]
