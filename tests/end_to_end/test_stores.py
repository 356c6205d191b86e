"""Experts into a store and back, through the command line and transformers."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from umaf.cli import main
from umaf.merging.stores import PACKERS


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """A pico LLaMA and three experts near it."""
    home = tmp_path_factory.mktemp("family")
    config = AutoConfig.for_model(
        "llama",
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=40,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(home / "base")
    ground = {name: value.clone() for name, value in model.state_dict().items()}
    for number in range(3):
        for name, value in model.state_dict().items():
            value.copy_(ground[name] + 0.01 * torch.randn(value.shape))
        model.save_pretrained(home / f"e{number}")
    return home


def run(*words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code or 0


def pack(family, way, out, *more):
    experts = [word for number in range(3) for word in ("--expert", f"e{number}={family / f'e{number}'}")]
    return run("compress", way, out, "--base", family / "base", *experts, *more)


@pytest.mark.parametrize("way", PACKERS.names())
def test_every_way_keeps_less_and_gives_a_model_back(family, tmp_path, way, capsys):
    # Matrices of 16 columns have little to spare; a rank of 2 is what they can.
    small = ("--option", "rank=2") if way == "rmm" else ()
    assert pack(family, way, tmp_path / "store", "--json", *small) == 0
    said = json.loads(capsys.readouterr().out)
    sizes = sum(path.stat().st_size for path in (tmp_path / "store").glob("*.safetensors"))
    assert said["bytes"] <= sizes < said["bytes_of_experts"]
    assert (
        run("restore", tmp_path / "store", tmp_path / "back", "--base", family / "base", "--expert", "e1")
        == 0
    )
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "back")
    assert torch.isfinite(model(torch.tensor([[1, 2, 3]])).logits).all()
    base, expert, back = (
        load_file(folder / "model.safetensors")
        for folder in (family / "base", family / "e1", tmp_path / "back")
    )
    before = sum(float((expert[name] - base[name]).square().sum()) for name in base)
    after = sum(float((expert[name] - back[name]).square().sum()) for name in base)
    assert after < before


def test_rmm_with_a_full_basis_gives_every_expert_back(family, tmp_path):
    assert pack(family, "rmm", tmp_path / "store", "--option", "rank=16", "--option", "basis=2") == 0
    for number in range(3):
        out = tmp_path / f"back{number}"
        assert (
            run("restore", tmp_path / "store", out, "--base", family / "base", "--expert", f"e{number}") == 0
        )
        expert, back = (load_file(f / "model.safetensors") for f in (family / f"e{number}", out))
        for name, value in expert.items():
            torch.testing.assert_close(back[name], value, rtol=0, atol=2e-6)


def test_a_mixture_is_restored(family, tmp_path):
    pack(family, "rmm", tmp_path / "store", "--option", "rank=16")
    words = ("--weight", "e0=0.5", "--weight", "e2=0.5")
    assert run("restore", tmp_path / "store", tmp_path / "mix", "--base", family / "base", *words) == 0
    mix, *parts = (
        load_file(f / "model.safetensors") for f in (tmp_path / "mix", family / "e0", family / "e2")
    )
    for name, value in mix.items():
        torch.testing.assert_close(value, 0.5 * parts[0][name] + 0.5 * parts[1][name], rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--expert", "e7"), "no expert e7"),
        (("--weight", "e0=much"), "must be a number"),
        ((), "one expert or weights"),
    ],
)
def test_what_cannot_be_restored_is_one_sentence(family, tmp_path, capsys, words, said):
    pack(family, "emr", tmp_path / "store")
    capsys.readouterr()
    assert run("restore", tmp_path / "store", tmp_path / "back", "--base", family / "base", *words) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "back").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_another_base_is_refused(family, tmp_path, capsys):
    pack(family, "emr", tmp_path / "store")
    assert (
        run("restore", tmp_path / "store", tmp_path / "back", "--base", family / "e0", "--expert", "e1") == 1
    )
    assert "was made with the base" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--option", "densty=0.1"), 'Did you mean "density"'),
        (("--option", "density=7"), "must lie in (0, 1]"),
        (("--option", "density"), "NAME=VALUE"),
    ],
)
def test_a_wrong_option_is_one_sentence(family, tmp_path, capsys, words, said):
    assert pack(family, "compeft", tmp_path / "store", *words) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_store_keeps_numbers_in_the_base_s_format(tmp_path):
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        draw, places = torch.Generator().manual_seed(0), {}
        for name in ("base", "one", "two"):
            places[name] = tmp_path / str(dtype) / f"{name}.safetensors"
            places[name].parent.mkdir(exist_ok=True)
            save_file({"w": torch.randn(6, 6, generator=draw).to(dtype)}, places[name])
        store = tmp_path / str(dtype) / "store"
        experts = [word for name in ("one", "two") for word in ("--expert", f"{name}={places[name]}")]
        assert run("compress", "tall_masks", store, "--base", places["base"], *experts) == 0
        assert load_file(store / "store-00000.safetensors")["w//sum"].dtype == dtype
