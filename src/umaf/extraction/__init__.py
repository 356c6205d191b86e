"""Stage 1: the Capability Extractor, fingerprints and their similarity."""

from __future__ import annotations

from umaf.extraction.answered import Answered, arranged, bind_labels, load_answered, meant
from umaf.extraction.answers import Answers
from umaf.extraction.base import check_base, likeness
from umaf.extraction.binding import bind, unbind
from umaf.extraction.bound import Bound, along, load_bound, prototypes
from umaf.extraction.describe import describe
from umaf.extraction.extractor import Extractor, card_of, extract, fingerprint_of, open_extractor
from umaf.extraction.fingerprint import Fingerprint, FingerprintCard, comparable
from umaf.extraction.inputs import Inputs, Reading, read_inputs
from umaf.extraction.linear import Linear, anchor_map, fit_linear, load_linear, movement, save_linear
from umaf.extraction.pca import PCA, default_pca, fit_pca, load_pca
from umaf.extraction.shipped import open_trained
from umaf.extraction.similarity import DISTANCES, SIMILARITIES, similarities, similarity
from umaf.extraction.trained import Trained, load_trained, save_trained, untrained
from umaf.extraction.universal import Universal, fit_universal, load_universal

__all__ = [
    "DISTANCES",
    "PCA",
    "SIMILARITIES",
    "Answered",
    "Answers",
    "Bound",
    "Extractor",
    "Fingerprint",
    "FingerprintCard",
    "Inputs",
    "Linear",
    "Reading",
    "Trained",
    "Universal",
    "along",
    "anchor_map",
    "arranged",
    "bind",
    "bind_labels",
    "card_of",
    "check_base",
    "comparable",
    "default_pca",
    "describe",
    "extract",
    "fingerprint_of",
    "fit_linear",
    "fit_pca",
    "fit_universal",
    "likeness",
    "load_answered",
    "load_bound",
    "load_linear",
    "load_pca",
    "load_trained",
    "load_universal",
    "meant",
    "movement",
    "open_extractor",
    "open_trained",
    "prototypes",
    "read_inputs",
    "save_linear",
    "save_trained",
    "similarities",
    "similarity",
    "unbind",
    "untrained",
]
