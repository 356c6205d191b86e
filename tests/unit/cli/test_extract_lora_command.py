"""`umaf extract-lora`: tables, JSON and mistakes."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from umaf.cli import main

UP = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    base = {UP: torch.randn(12, 8), "model.norm.weight": torch.ones(8)}
    save_file(base, "base.safetensors")
    save_file(
        {name: tensor + torch.randn_like(tensor) for name, tensor in base.items()}, "expert.safetensors"
    )

    def run(*words, code=0):
        with pytest.raises(SystemExit) as end:
            main(["extract-lora", "expert.safetensors", "--base", "base.safetensors", *words])
        shown = capsys.readouterr()
        assert end.value.code == code
        return shown.out if code == 0 else shown.err

    return run


def test_table_says_what_the_lora_misses(run, tmp_path):
    out = " ".join(run("-o", "lora", "--rank", "2").split())
    assert "model.layers.0.mlp.up_proj" in out and "not in the LoRA: model.norm.weight" in out
    assert (tmp_path / "lora/adapter_config.json").is_file()


def test_auto_keeps_energy_up_to_its_highest_rank(run):
    found = json.loads(run("-o", "a", "--energy", "0.99", "--json"))
    assert found["error"] ** 2 < 0.01 and found["modules"][0]["rank"] > 3
    found = json.loads(run("-o", "b", "--energy", "0.99", "--max-rank", "3", "--json"))
    assert found["modules"][0]["rank"] == 3


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--rank", "some"), "whole number"),
        (("--rank", "0"), "at least 1"),
        (("--energy", "2"), "energy"),
    ],
)
def test_mistakes_are_one_sentence(run, words, says):
    told = run("-o", "lora", *words, code=1)
    assert says in told and len(told.strip().splitlines()) == 1
