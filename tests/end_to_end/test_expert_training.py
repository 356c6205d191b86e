"""`umaf expert train` from the command line: an expert, its curves, an interruption, and mistakes in one sentence."""

from __future__ import annotations

import json
from importlib import import_module

import pytest

from umaf.cli import main
from umaf.cli.expert_train import ExpertTrainConfig, training_of
from umaf.experts.expert import load_expert
from umaf.experts.settings import TrainSettings

QUICK = "--steps 4 --prompts 3 --samples 2 --max-new-tokens 3 --validate-every 4".split()


def run(*arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["expert", "train", *map(str, arguments)])
    return ended.value.code, capsys.readouterr()


@pytest.fixture
def base(pico):
    return pico("llama")


def test_an_expert_is_trained_and_told_about(base, tmp_path, capsys):
    out = tmp_path / "colour"
    code, said = run(
        base, "--task", "made/colour", "--objective", "next_token", "--reward", "exact", "--out", out, "--json", *QUICK,
        capsys=capsys,
    )  # fmt: skip
    assert code == 0
    found = json.loads(said.out)
    assert found["name"] == "colour" and found["scores"]["steps"] == 4
    card = load_expert(out).card
    assert card.settings["objective"] == "next_token" and card.data["task"] == "made/colour"
    assert (out / "curves.svg").read_text().startswith("<?xml")


def test_a_monitor_gets_the_numbers_of_every_step(base, tmp_path, capsys):
    asked = (base, "--task", "made/colour", "--objective", "next_token", "--reward", "exact", *QUICK)
    code, _ = run(*asked, "--out", tmp_path / "x", "--monitor", tmp_path / "run", capsys=capsys)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if line["job"] == "expert" and "loss" in line]
    assert code == 0 and steps == [1, 2, 3, 4]
    assert [line["step"] for line in lines if line["job"] == "expert on validation"] == [0, 4]


def test_rewards_that_are_all_equal_are_told(base, tmp_path, capsys):
    code, said = run(
        base, "--task", "made/larger", "--reward", "numeric", "--out", tmp_path / "x", "--steps", 40, "--prompts", 1,
        "--samples", 2, "--max-new-tokens", 1, "--validate-every", 100, "--temperature", 0.05, capsys=capsys,
    )  # fmt: skip
    assert code == 1 and "nothing can be learned" in said.err and said.err.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_code_needs_leave_before_a_model_is_opened(tmp_path, capsys):
    code, said = run(
        "no/such/model", "--task", "graded/lists", "--out", tmp_path / "x", *QUICK, capsys=capsys
    )
    assert code == 1 and "--run-code" in said.err


def test_singular_directions_are_found_once_per_base(base, tmp_path, capsys, monkeypatch):
    decompose_module = import_module("umaf.experts.decompose")  # the room has a function of that name
    asked = (base, "--task", "made/colour", "--objective", "next_token", "--reward", "exact", *QUICK)
    asked = (*asked, "--modules", "mlp", "--cache", tmp_path / "kept")
    assert run(*asked, "--out", tmp_path / "first", capsys=capsys)[0] == 0
    assert len(list((tmp_path / "kept").rglob("*.safetensors"))) == 6  # three weights in each of two layers

    def again(*_):
        raise AssertionError("decomposed again")

    monkeypatch.setattr(decompose_module, "_factored", again)
    assert run(*asked, "--out", tmp_path / "second", capsys=capsys)[0] == 0


def test_an_output_that_exists_is_refused_at_once(base, tmp_path, capsys):
    code, said = run(base, "--task", "made/colour", "--out", tmp_path, *QUICK, capsys=capsys)
    assert code == 1 and "already exists" in said.err


def test_the_command_and_the_settings_have_one_set_of_defaults():
    typed = training_of(ExpertTrainConfig(model="m", task="t", out="o"))
    assert typed == TrainSettings()


def test_an_interruption_is_gone_on_with(base, tmp_path, capsys, monkeypatch):
    from umaf.experts import fit as fit_module

    out, real = tmp_path / "larger", fit_module.take_step

    def cut(work, state):
        if state.step == 2:
            raise KeyboardInterrupt
        return real(work, state)

    asked = (
        base,
        "--task",
        "made/larger",
        "--objective",
        "next_token",
        "--reward",
        "numeric",
        "--out",
        out,
        *QUICK,
    )
    monkeypatch.setattr(fit_module, "take_step", cut)
    code, said = run(*asked, capsys=capsys)
    assert code == 130 and "the same command goes on" in said.err and not out.exists()
    monkeypatch.setattr(fit_module, "take_step", real)
    code, said = run(*asked, capsys=capsys)
    assert code == 0 and "Going on at step 2" in said.err
    assert load_expert(out).card.scores["steps"] == 4 and not (tmp_path / "larger.training").exists()
