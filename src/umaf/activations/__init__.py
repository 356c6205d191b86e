"""What a model computes on texts, and the coordinates every model shares."""

from __future__ import annotations

from umaf.activations.alignment import align, token_ends
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
    "align",
    "capture",
    "check_probes",
    "depth_layers",
    "pad",
    "read_probes",
    "reading",
    "relative",
    "token_ends",
    "token_ids",
    "too_long",
]
