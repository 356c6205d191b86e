"""Models as recipes name them, from real files: folders, bare files, adapters on them."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from umaf.deltas import LowRank, Target, write_adapter
from umaf.errors import CheckpointError
from umaf.merging.planning.plan import make_plan
from umaf.merging.recipes.recipe import Recipe

TENSORS = {"model.layers.0.mlp.up_proj.weight": torch.ones(4, 3), "model.norm.weight": torch.ones(3)}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("base", "a+b", "run@3"):
        (tmp_path / name).mkdir()
        save_file(TENSORS, tmp_path / name / "model.safetensors")
        config = {"model_type": "llama", "num_hidden_layers": 1}
        (tmp_path / name / "config.json").write_text(json.dumps(config), encoding="utf-8")
        save_file(TENSORS, tmp_path / f"{name}.safetensors")
    factors = LowRank(torch.ones(1, 3), torch.ones(4, 1))
    write_adapter(tmp_path / "lora", {"model.layers.0.mlp.up_proj": Target("linear", factors)})
    return tmp_path


def test_folders_with_signs_in_their_names(place):
    plan = make_plan(Recipe(method="ties", base="base", models=["a+b", "run@3"]))
    assert [one.checkpoint.config["model_type"] for one in plan.models] == ["llama"] * 3
    assert len(plan.jobs) == 2 and all(len(job.sources) == 2 for job in plan.jobs)


def test_bare_files(place):
    plan = make_plan(Recipe(method="ties", base="base.safetensors", models=["a+b.safetensors"]))
    assert plan.bytes_read == 2 * plan.bytes_written == 2 * 15 * 4


def test_adapters_on_one_checkpoint_open_it_once(place):
    plan = make_plan(Recipe(method="ties", base="base", models=["base+lora", "a+b+lora"]))
    bare, changed, other = plan.models
    assert changed.checkpoint is bare.checkpoint and other.checkpoint is not bare.checkpoint
    name = "model.layers.0.mlp.up_proj.weight"
    assert not bare.loras
    assert torch.equal(changed.loras[0].apply(name, torch.ones(4, 3)), torch.full((4, 3), 2.0))


def test_what_is_not_there(place):
    with pytest.raises(CheckpointError, match=r"\./none"):
        make_plan(Recipe(method="ties", base="base", models=["./none"]))
