"""Dispatch: which experts a request gets, and two-pass generation with them."""

from __future__ import annotations
