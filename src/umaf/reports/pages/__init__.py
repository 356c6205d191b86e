"""What a page says of each kind of record."""

from __future__ import annotations

from umaf.reports.pages.page import report, sections_of

__all__ = ["report", "sections_of"]
