"""The one door to Hugging Face: open a model and its tokenizer, and know its parts."""

from __future__ import annotations

from umaf.models.architectures import FAMILIES, Family, family_of
from umaf.models.model import Model, bare, layer_list, shape_hash, weights_hash
from umaf.models.open import fresh_classifier, open_model

__all__ = [
    "FAMILIES",
    "Family",
    "Model",
    "bare",
    "family_of",
    "fresh_classifier",
    "layer_list",
    "open_model",
    "shape_hash",
    "weights_hash",
]
