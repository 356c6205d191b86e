"""Metrics of running jobs, fingerprints as they drift and cluster, and alarms."""

from __future__ import annotations

from umaf.monitor.alarms import Alarms
from umaf.monitor.clusters import Silhouettes, silhouettes
from umaf.monitor.drift import Drift, drift
from umaf.monitor.read import Run, read_run
from umaf.monitor.stream import Monitor

__all__ = ["Alarms", "Drift", "Monitor", "Run", "Silhouettes", "drift", "read_run", "silhouettes"]
