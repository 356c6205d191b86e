"""Web: a page over a store of fingerprints and a folder of records, which also starts transfers and merges."""

from __future__ import annotations
