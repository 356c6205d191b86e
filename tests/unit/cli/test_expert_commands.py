"""The commands around experts, through the command line's own door."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from umaf.cli import main
from umaf.experts import identity_expert, load_expert, save_expert
from umaf.models import open_model


def run(*words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code or 0


@pytest.fixture
def shelf(pico, tmp_path):
    model = open_model(pico("llama"))
    for name in ("sums", "kinds"):
        plain = identity_expert(model, name)
        z = {module: 0.5 + torch.rand(each.shape) for module, each in plain.z.items()}
        card = plain.card.model_copy(update={"objective": "reinforce", "scores": {"validation": 0.75}})
        save_expert(replace(plain, z=z, card=card), tmp_path / "experts" / name)
    return tmp_path / "experts"


def test_experts_are_listed(shelf, capsys):
    assert run("expert", "list", shelf, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["kinds", "sums"] and rows[0]["scores"] == {"validation": 0.75}
    assert run("expert", "list", shelf) == 0
    assert "0.750" in capsys.readouterr().out


def test_no_experts_and_no_folder_are_told_apart(tmp_path, capsys):
    assert run("expert", "list", tmp_path) == 0
    assert "There are no experts" in capsys.readouterr().out
    assert run("expert", "list", tmp_path / "none") == 1
    assert "there is no such folder" in capsys.readouterr().err


def test_an_expert_is_shown(shelf, capsys):
    assert run("expert", "show", shelf / "sums", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    found = load_expert(shelf / "sums")
    assert facts["numbers"] == sum(z.numel() for z in found.z.values())
    one = facts["modules"]["model.layers.0.mlp.up_proj"]
    assert one["numbers"] == 32 and 0.5 <= one["lowest"] < one["highest"] <= 1.5
    assert run("expert", "show", shelf / "sums") == 0
    assert "multipliers of singular values" in capsys.readouterr().out


def test_numbers_are_counted_from_a_config_alone(pico, tmp_path, capsys):
    config = tmp_path / "config.json"
    config.write_text((pico("llama") / "config.json").read_text())
    assert run("expert", "count", config, "--json", "--modules", "mlp", "--rank", 4) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["svf"] == 2 * 3 * 32 and facts["lora"] == 2 * 3 * 4 * 80
    assert run("expert", "count", pico("bert")) == 0
    assert "of a LoRA of rank 16" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["lora", "merged", "compressed"])
def test_an_expert_is_exported_with_what_was_lost(shelf, tmp_path, capsys, form):
    more = {"lora": ["--rank", 4], "merged": [], "compressed": ["--bits", 8]}[form]
    cache = ["--cache", tmp_path / "cache"]
    assert (
        run("expert", "export", shelf / "sums", tmp_path / "out", "--form", form, *more, *cache, "--json")
        == 0
    )
    facts = json.loads(capsys.readouterr().out)
    assert facts["form"] == form and (facts["error"] > 0.1 if form == "lora" else facts["error"] < 0.02)
    made = {"lora": "adapter_model", "merged": "model", "compressed": "expert"}[form]
    assert (tmp_path / "out" / f"{made}.safetensors").is_file() and list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--form", "merged", "--rank", "3"], "--rank belongs to --form lora"),
        (["--form", "compressed"], "needs --keep N, --bits 8, or both"),
        (["--form", "compressed", "--bits", "4"], "bits was 4"),
    ],
)
def test_options_that_do_not_belong_are_refused(shelf, tmp_path, capsys, words, said):
    assert run("expert", "export", shelf / "sums", tmp_path / "out", *words) == 1
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_another_base_is_one_sentence(pico, shelf, tmp_path, capsys):
    assert run("expert", "export", shelf / "sums", tmp_path / "out", "--base", pico("gpt2")) == 1
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "out").exists()
