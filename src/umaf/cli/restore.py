"""`umaf restore`; it lives beside its counterpart."""

from __future__ import annotations

from umaf.cli.compress import restore

__all__ = ["restore"]
