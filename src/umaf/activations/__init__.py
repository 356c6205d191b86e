"""What a model computes on texts, and the coordinates every model shares."""

from __future__ import annotations

from umaf.activations.anchors import ANCHORS, ANCHORS_HASH
from umaf.activations.capture import DEPTHS, capture, depth_layers, reading
from umaf.activations.probes import MINIMUM, Probes, check_probes, read_probes
from umaf.activations.relative import relative
from umaf.activations.tokens import pad, token_ids, too_long

__all__ = [
    "ANCHORS",
    "ANCHORS_HASH",
    "DEPTHS",
    "MINIMUM",
    "Probes",
    "capture",
    "check_probes",
    "depth_layers",
    "pad",
    "read_probes",
    "reading",
    "relative",
    "token_ids",
    "too_long",
]
