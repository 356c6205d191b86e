"""Probes for tests with the tiny models: every word is in their vocabularies."""

from __future__ import annotations

PROBES = tuple(
    f"the {thing} was {word}"
    for thing in ("film", "music", "doctor", "letter", "town")
    for word in ("good", "bad", "kind", "small", "poor")
)
LABELS = ("positive", "negative")
CUE = "sentiment"
