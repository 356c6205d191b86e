"""Fingerprints made by two workers of a local Ray: the same rows, and what cannot be read is told."""

from __future__ import annotations

import shutil

import pytest
import torch

from tests.texts import PROBES
from umaf.index import add, collect, make_space, make_store

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_two_workers_make_the_rows_of_one_process(cluster, tmp_path, pico):
    for name in ("llama", "gpt2"):
        shutil.copytree(pico(name), tmp_path / "models" / name)
    shutil.copytree(pico("llama"), tmp_path / "models" / "broken")
    (tmp_path / "models" / "broken" / "model.safetensors").write_bytes(b"not weights")
    kept = {}
    for engine in ("local", "ray"):
        store = make_store(tmp_path / engine, make_space(PROBES))
        built = add(store, collect([str(tmp_path / "models")]), engine=engine)
        assert sorted(built.added) == ["gpt2", "llama"] and list(built.failed) == ["broken"]
        kept[engine] = {entry.model: entry for entry in store.entries()}
    for name, own in kept["local"].items():
        far = kept["ray"][name]
        assert torch.allclose(own.vector, far.vector, atol=1e-6) and own.card == far.card
        assert torch.allclose(own.answers, far.answers, atol=1e-6) and own.key == far.key
