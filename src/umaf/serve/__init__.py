"""Serve: an adaptive model behind an OpenAI-compatible endpoint."""

from __future__ import annotations
