"""The bank of experts and oracles: listed, built once, found again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from umaf.adapters import load_adapter
from umaf.cli import main
from umaf.generation.train import Schedule
from umaf.models import open_model
from umaf.models.locate import zoo_names
from zoo import bank


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(bank, "SMALL", Schedule(steps=2))
    monkeypatch.setattr("zoo.experts.SCHEDULE", Schedule(steps=2))
    monkeypatch.setattr("zoo.experts.ENCODER", Schedule(steps=2))


def run(*words):
    with pytest.raises(SystemExit) as end:
        main(["zoo", "bank", *map(str, words)])
    return end.value.code


def asked(place, *models):
    return ("--only", "made/tense", "made/plural", "--cache", place, "--model", *models, "--seed", 3)


def listed(capsys, *words):
    capsys.readouterr()
    assert run(*words, "--list", "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_what_is_missing_is_built_once_and_opens(pico, tmp_path, capsys, quick, monkeypatch):
    words = asked(tmp_path, pico("llama"), pico("bert"))
    rows = listed(capsys, *words)
    # An encoder writes no plurals.
    assert [(row["kind"], Path(row["model"]).name, row["task"]) for row in rows] == [
        (kind, model, task)
        for kind in ("experts", "oracles")
        for model, task in (("llama", "made/tense"), ("llama", "made/plural"), ("bert", "made/tense"))
    ]
    assert not any(row["built"] for row in rows)
    assert run(*words) == 0
    rows = listed(capsys, *words)
    assert all(row["built"] and row["seed"] == 3 for row in rows)
    assert open_model(next(row["folder"] for row in rows if row["kind"] == "experts")).head == "lm"
    oracle = next(row["folder"] for row in rows if row["kind"] == "oracles")
    load_adapter(open_model(pico("llama")), oracle)
    about = json.loads((Path(oracle) / "umaf.json").read_text())["provenance"]
    assert (about["task"], about["seed"], about["schedule"]["steps"]) == ("made/tense", 3, 2)

    monkeypatch.setattr(bank, "train_lora", lambda *_, **__: pytest.fail("it was built before"))
    monkeypatch.setattr("zoo.experts.finetune", lambda *_, **__: pytest.fail("it was built before"))
    assert run(*words) == 0 and "6 already there" in capsys.readouterr().out


def test_a_build_that_was_stopped_goes_on(pico, tmp_path, capsys, quick, monkeypatch):
    words = (*asked(tmp_path, pico("llama")), "--kind", "oracles")
    train, calls = bank.train_lora, []

    def stopped(*args, **more):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train(*args, **more)

    monkeypatch.setattr(bank, "train_lora", stopped)
    assert run(*words) == 130
    assert [row["built"] for row in listed(capsys, *words)] == [True, False]
    assert run(*words) == 0 and len(calls) == 3
    assert [row["built"] for row in listed(capsys, *words)] == [True, True]


def test_unknown_tasks_and_models_are_said_in_one_line(tmp_path, capsys):
    assert run("--only", "made/nothing", "--cache", tmp_path) == 1
    assert capsys.readouterr().err.count("\n") == 1
    if zoo_names():
        assert bank.place_of("bert-1m") == "zoo:bert-1m"
    assert bank.place_of("org/model") == "org/model"
