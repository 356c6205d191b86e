"""The store of fingerprints: add models, search them, group them."""

from __future__ import annotations

from umaf.index.answers import answers_of, knowledge
from umaf.index.build import Built, Opening, add, add_outputs, identify, outputs_entry, read_model
from umaf.index.cluster import Clusters, clusters
from umaf.index.collect import Candidate, collect
from umaf.index.entry import Entry
from umaf.index.lineage import Hint, Pair, likely_bases, near_duplicates
from umaf.index.logme import logme
from umaf.index.opening import make_store, open_store
from umaf.index.query import Query, query_vector, read_query
from umaf.index.search import (
    Asked,
    Found,
    Hit,
    arrange,
    by_fingerprint,
    by_model,
    measure_recall,
    stored,
)
from umaf.index.space import Space, default_probes, make_space
from umaf.index.store import EXACT, Store
from umaf.index.task import by_task, task_fingerprint, task_vector
from umaf.index.told import Ask
from umaf.index.trial import try_found
from umaf.index.verify import Verified, export, verify

__all__ = [
    "EXACT",
    "Ask",
    "Asked",
    "Built",
    "Candidate",
    "Clusters",
    "Entry",
    "Found",
    "Hint",
    "Hit",
    "Opening",
    "Pair",
    "Query",
    "Space",
    "Store",
    "Verified",
    "add",
    "add_outputs",
    "answers_of",
    "arrange",
    "by_fingerprint",
    "by_model",
    "by_task",
    "clusters",
    "collect",
    "default_probes",
    "export",
    "identify",
    "knowledge",
    "likely_bases",
    "logme",
    "make_space",
    "make_store",
    "measure_recall",
    "near_duplicates",
    "open_store",
    "outputs_entry",
    "query_vector",
    "read_model",
    "read_query",
    "stored",
    "task_fingerprint",
    "task_vector",
    "try_found",
    "verify",
]
