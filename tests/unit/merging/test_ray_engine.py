"""The same plan on a local Ray with two workers: the same bits, and the same words when something is wrong."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.unit.merging import made_checkpoints as made
from umaf.errors import NumericalError
from umaf.merging.running import crew
from umaf.merging.running.room import CHUNK
from umaf.merging.stages import merge

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.mark.parametrize("method", ["dare_ties", "ties", "tsv_m"])
def test_two_workers_give_the_bits_of_threads(cluster, tmp_path, monkeypatch, method):
    folders = made.family(tmp_path / "family", long=2 * CHUNK + 8)
    asked = made.recipe(folders, method, seed=3)
    monkeypatch.setattr(crew, "RUN", CHUNK)
    local = made.read(merge(asked, tmp_path / "local", workers=1))
    far = made.read(merge(asked, tmp_path / "far", workers=2, engine="ray"))
    assert local.keys() == far.keys()
    assert all(torch.equal(local[name], far[name]) for name in local)


def test_a_mistake_in_a_task_is_told_as_it_is(cluster, tmp_path):
    folders = made.family(tmp_path / "family")
    file = sorted(folders[1].glob("*.safetensors"))[0]
    tensors = load_file(file)
    tensors["lm_head.weight"][0] = torch.nan
    save_file(tensors, file)
    with pytest.raises(NumericalError, match=r"expert-1/.*: lm_head\.weight holds NaN"):
        merge(made.recipe(folders, "task_arithmetic"), tmp_path / "out", engine="ray")
    assert not (tmp_path / "out").exists()
