"""`umaf diff`: tables, JSON and a figure."""

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
    tensors = {
        UP: torch.ones(4, 4),
        "model.layers.1.mlp.up_proj.weight": torch.ones(4, 4),
        "gone": torch.ones(1),
    }
    save_file(tensors, "a.safetensors")
    del tensors["gone"]
    save_file(tensors | {UP: torch.full((4, 4), 1.5), "zero": torch.zeros(1)}, "b.safetensors")

    def run(*words, code=0):
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        shown = capsys.readouterr()
        assert end.value.code == code
        return shown

    return run


def test_tables_name_layers_modules_and_what_is_missing(run):
    out = " ".join(run("diff", "a.safetensors", "b.safetensors").out.split())
    assert "model.layers.0" in out and "mlp.up_proj.weight" in out and "50.0%" in out
    assert "only in the first: gone" in out and "only in the second: zero" in out


def test_names_are_whole_on_a_narrow_terminal(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    out = run("diff", "a.safetensors", "b.safetensors").out
    assert "…" not in out
    first = "".join(line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│"))
    assert UP in first


def test_json_holds_every_number(run):
    found = json.loads(run("diff", "a.safetensors", "b.safetensors", "--json").out)
    assert {one["name"]: one["relative"] for one in found["tensors"]}[UP] == pytest.approx(0.5)
    assert [one["name"] for one in found["layers"]] == ["model.layers.0", "model.layers.1"]
    assert (found["total"]["entries"], found["only_first"]) == (32, ["gone"])


def test_infinite_becomes_null(run):
    save_file({"w": torch.zeros(2)}, "zero.safetensors")
    save_file({"w": torch.ones(2)}, "one.safetensors")
    found = json.loads(run("diff", "zero.safetensors", "one.safetensors", "--json").out)
    assert found["total"]["relative"] is None


def test_figure(run, tmp_path):
    shown = run("diff", "a.safetensors", "b.safetensors", "--figure", "drawn/map.png")
    assert "map.svg" in shown.out
    assert (tmp_path / "drawn/map.png").stat().st_size > 1000
    shown = run("diff", "a.safetensors", "b.safetensors", "--figure", "map.pdf", code=1)
    assert ".png" in shown.err


def test_a_file_that_is_not_there_is_one_sentence(run):
    shown = run("diff", "a.safetensors", "./none", code=1)
    assert "none" in shown.err and len(shown.err.strip().splitlines()) == 1
