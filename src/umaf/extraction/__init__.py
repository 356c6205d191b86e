"""Stage 1: the Capability Extractor, fingerprints and their similarity."""

from __future__ import annotations

from umaf.extraction.answers import Answers
from umaf.extraction.base import check_base, likeness
from umaf.extraction.binding import bind, unbind
from umaf.extraction.bound import Bound, load_bound, prototypes
from umaf.extraction.describe import describe
from umaf.extraction.extractor import Extractor, extract, open_extractor, reader_of
from umaf.extraction.fingerprint import Fingerprint, FingerprintCard, comparable
from umaf.extraction.inputs import Inputs, Reading, read_inputs
from umaf.extraction.pca import PCA, default_pca, fit_pca, load_pca
from umaf.extraction.similarity import DISTANCES, SIMILARITIES, similarities, similarity
from umaf.extraction.trained import Trained, load_trained, save_trained, untrained
from umaf.extraction.universal import Reader, Universal, fit_reader, fit_universal, load_universal, places

__all__ = [
    "DISTANCES",
    "PCA",
    "SIMILARITIES",
    "Answers",
    "Bound",
    "Extractor",
    "Fingerprint",
    "FingerprintCard",
    "Inputs",
    "Reader",
    "Reading",
    "Trained",
    "Universal",
    "bind",
    "check_base",
    "comparable",
    "default_pca",
    "describe",
    "extract",
    "fit_pca",
    "fit_reader",
    "fit_universal",
    "likeness",
    "load_bound",
    "load_pca",
    "load_trained",
    "load_universal",
    "open_extractor",
    "places",
    "prototypes",
    "read_inputs",
    "reader_of",
    "save_trained",
    "similarities",
    "similarity",
    "unbind",
    "untrained",
]
