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
    # Queries and outputs 32 x 32, grouped keys and values 16 x 32, three 48 x 32 of the MLP, twice.
    assert facts["lora16"] == 2 * 16 * (2 * 64 + 2 * 48 + 3 * 80)
    assert facts["share"] == 2 * (2 * 32 + 2 * 16 + 3 * 32) / facts["lora16"]
    assert run("expert", "show", shelf / "sums") == 0
    said = capsys.readouterr().out
    assert "multipliers of singular values" in said and "of a LoRA of rank 16" in said


def test_its_size_is_that_of_the_expert_alone(shelf, capsys):
    """Curves drawn beside an expert are no part of it; and whoever may read its card may read its numbers."""
    before = sum(path.stat().st_size for path in (shelf / "sums").iterdir())
    (shelf / "sums" / "curves.png").write_bytes(b"x" * 99_000)
    assert run("expert", "show", shelf / "sums", "--json") == 0
    assert json.loads(capsys.readouterr().out)["kilobytes"] == round(before / 1000, 1)
    modes = {path.stat().st_mode & 0o777 for path in (shelf / "kinds").iterdir()}
    assert len(modes) == 1


def test_an_expert_without_its_base_at_hand_is_shown_all_the_same(shelf, capsys):
    card = shelf / "sums" / "expert.json"
    card.write_text(card.read_text().replace('"base": "', '"base": "/gone'))
    assert run("expert", "show", shelf / "sums", "--json") == 0
    assert json.loads(capsys.readouterr().out)["lora16"] is None


def test_experts_are_added_scaled_and_negated(shelf, tmp_path, capsys):
    assert run("expert", "add", tmp_path / "both", shelf / "sums", f"{shelf / 'kinds'}=-0.5", "--json") == 0
    found, (sums, kinds) = load_expert(tmp_path / "both"), (load_expert(shelf / n) for n in ("sums", "kinds"))
    for name, z in found.z.items():
        assert torch.allclose(z, 1 + (sums.z[name] - 1) - 0.5 * (kinds.z[name] - 1), atol=1e-6)
    assert found.name == "both" and json.loads(capsys.readouterr().out)["parts"] == {
        "sums": 1.0,
        "kinds": -0.5,
    }
    assert found.card.settings["parts"] == ["sums", "kinds"] and found.card.settings["weights"] == [1.0, -0.5]
    assert run("expert", "add", tmp_path / "both", shelf / "sums") == 1
    assert "already exists" in capsys.readouterr().err
    assert run("expert", "add", tmp_path / "x", f"{shelf / 'sums'}=much") == 1
    assert "write DIR or DIR=WEIGHT" in capsys.readouterr().err
    assert run("expert", "add", tmp_path / "x", tmp_path / "none") == 1 and not (tmp_path / "x").exists()
    assert "there is no expert.json" in capsys.readouterr().err


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
