"""`umaf evaluate` over many models, and what `umaf transfer` and `umaf merge` say they brought and cost."""

from __future__ import annotations

import json
import shutil
import signal

import pytest
import torch
import yaml

from tests.texts import CUE, LABELS, PROBES
from umaf.cli import main
from umaf.evaluation.record import read_record
from umaf.models import open_model


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    (tmp_path / "probes.txt").write_text("\n".join(PROBES))

    def run(*words, code=0):
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        shown = capsys.readouterr()
        assert end.value.code == code, shown.err
        if code:
            return shown.err
        return json.loads(shown.out) if "--json" in words else " ".join(shown.out.split())

    return run


def test_many_models_on_many_tasks_give_a_table_and_a_record(run, pico, tmp_path):
    words = ("evaluate", pico("llama"), pico("gpt2"), pico("t5"), "--limit", "6")
    tasks = ("--task", "made/agreement", "--task", "made/prose")
    found = run(*words, *tasks, "--json")
    assert [(row["model"], row["task"]) for row in found["scores"]][:3] == [
        ("llama", "made/agreement"),
        ("llama", "made/prose"),
        ("gpt2", "made/agreement"),
    ]
    # Three models make three pairs on each task.
    assert len(found["comparisons"]) == 6
    record = read_record(tmp_path / found["record"])
    assert record.kind == "evaluate" and len(record.numbers["results"]) == 6
    assert len(record.numbers["results"][0]["items"]) == 6
    shown = run(*words, *tasks, "--against", pico("gpt2"))
    assert "from gpt2" in shown and "lost" in shown and "Holm" in shown
    assert len(list((tmp_path / "out" / "evaluate").glob("*.json"))) == 2


def test_an_adapter_is_compared_with_the_bare_model(run, pico):
    words = ("transfer", "--source", pico("bert"), "--target", pico("llama"), "--probes", "probes.txt")
    run(*words, "--cue", CUE, "--labels", ",".join(LABELS), "--rank", "2", "--out", "adapter")
    found = run(
        *("evaluate", pico("llama"), "--adapter", "adapter", "--against", pico("llama")),
        *("--task", "made/sentiment", "--limit", "8", "--json"),
    )
    assert [row["model"] for row in found["scores"]] == ["llama", "llama with adapter"]
    (one,) = found["comparisons"]
    assert one["first"] == "llama" and one["second"] == "llama with adapter" and one["n"] == 8


def test_a_task_that_is_nowhere_stops_before_any_model_is_opened(run):
    assert "no grammar makes it" in run("evaluate", "no/such/model", "--task", "made/nothing", code=1)


def test_a_transfer_says_what_it_brought_and_cost(run, pico, tmp_path):
    words = ("transfer", "--source", pico("bert"), "--target", pico("llama"), "--probes", "probes.txt")
    more = ("--cue", CUE, "--labels", ",".join(LABELS), "--rank", "2", "--route", "distill", "--steps", "2")
    asked = ("--evaluate", "made/tense", "--evaluate-limit", "4", "--monitor", "run")
    found = run(*words, *more, *asked, "--out", "adapter", "--json")
    assert len(found["change"]["wanted"]) == 1 and len(found["change"]["elsewhere"]) == 6
    record = read_record(tmp_path / "adapter" / "record.json")
    assert record.kind == "transfer" and record.numbers["forgotten"]["n"] == 6
    assert record.numbers["sources"][0]["probes"] == 25
    metrics = run("monitor", "run", "--json")
    assert any(job.startswith("train") for job in metrics["metrics"]) and metrics["state"] == "done"
    shown = run(*words, *more, *asked[:4], "--out", "again")
    assert "forgotten elsewhere" in shown
    assert "no grammar" in run(*words, *more, "--evaluate", "made/nothing", "--out", "third", code=1)
    assert not (tmp_path / "third").exists()


@pytest.fixture
def recipe(pico, tmp_path):
    """A base and two models that went two ways from it."""
    generator = torch.Generator().manual_seed(0)
    for name in ("one", "two"):
        model = open_model(pico("llama"))
        with torch.no_grad():
            for parameter in model.net.parameters():
                parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))
        model.net.save_pretrained(tmp_path / name)
        model.tokenizer.save_pretrained(tmp_path / name)
    shutil.copytree(pico("llama"), tmp_path / "base")
    models = [{"model": str(tmp_path / name), "parameters": {"weight": 0.5}} for name in ("one", "two")]
    path = tmp_path / "recipe.yml"
    path.write_text(
        yaml.safe_dump(
            {"merge_method": "task_arithmetic", "base_model": str(tmp_path / "base"), "models": models}
        )
    )
    return path


def test_a_merge_says_what_it_brought_and_cost(run, recipe, tmp_path):
    found = run(
        *("merge", recipe, "merged", "--evaluate", "made/tense", "--evaluate-limit", "4", "--json"),
    )
    assert len(found["change"]["elsewhere"]) == 6 and set(found["experts"]) == {"2 one", "3 two"}
    record = read_record(tmp_path / "merged" / "record.json")
    assert record.kind == "merged" and record.numbers["results"][0]["task"] == "made/tense"
    assert "no grammar" in run("merge", recipe, "other", "--evaluate", "made/nothing", code=1)
    assert not (tmp_path / "other").exists()
