"""From a recipe to jobs: what `make_plan` will give is in `jobs.py`."""

from __future__ import annotations

from umaf.merging.jobs import RULES, Job, Opened, Parts, Plan, Rows, Source

__all__ = ["RULES", "Job", "Opened", "Parts", "Plan", "Rows", "Source"]
