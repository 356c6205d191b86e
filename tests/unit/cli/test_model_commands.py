"""`umaf fingerprint`, `compare`, `transfer`, `evaluate`: what they print, and that a file can say it too."""

from __future__ import annotations

import json
import signal

import pytest

from tests.texts import CUE, LABELS, PROBES
from umaf.cli import main
from umaf.cli.opening import short, spread, stages
from umaf.cli.transfer import TransferConfig
from umaf.errors import ConfigError
from umaf.extraction import Fingerprint
from umaf.models import fresh_classifier, open_model
from umaf.models.quiet import quiet


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    (tmp_path / "probes.txt").write_text("\n".join(PROBES))

    def run(*words):
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        shown = capsys.readouterr()
        assert (end.value.code, shown.err) == (0, "")
        return json.loads(shown.out) if "--json" in words else " ".join(shown.out.split())

    return run


def test_fingerprint(run, pico, tmp_path):
    out = run("fingerprint", pico("bert"), "--probes", "probes.txt")
    assert "no base was given" in out and "25, hash" in out
    found = run("fingerprint", pico("bert"), "--probes", "probes.txt", "--out", "f.safetensors", "--json")
    assert (
        len(found["vector"]) == 512
        and found["card"]["probe_count"] == 25
        and found["file"] == "f.safetensors"
    )
    stored = Fingerprint.load(tmp_path / "f.safetensors")
    assert stored.vector.flatten().tolist() == pytest.approx(found["vector"], abs=1e-6)
    out = run("fingerprint", pico("bert"), "--base", pico("bert"), "--probes", "probes.txt")
    assert "nothing: it answers every probe like its base" in out


def test_compare_models_with_files(run, pico):
    words = ("--probes", "probes.txt", "--coordinates", "--out", "f.safetensors")
    run("fingerprint", pico("bert"), *words)
    models = (pico("bert"), pico("llama"), "f.safetensors")
    found = run("compare", *models, "--probes", "probes.txt", "--json")
    one = found["similarities"]
    assert found["metric"] == "cosine" and one[0][2] == pytest.approx(1, abs=1e-6) and one[0][1] < 0.99
    assert run("compare", "f.safetensors", "f.safetensors", "--json")["similarities"][0][1] == pytest.approx(
        1
    )
    out = run("compare", *models, "--probes", "probes.txt", "--metric", "cka")
    assert "cka" in out and "llama" in out and "1.000" in out


def test_transfer_and_evaluate(run, pico):
    words = ("--source", pico("bert"), "--target", pico("llama"), "--probes", "probes.txt", "--cue", CUE)
    out = run("transfer", *words, "--labels", ",".join(LABELS), "--rank", "2", "--out", "adapter")
    assert (
        "base not given" in out and "divergence from the sources' answers" in out and out.endswith("adapter")
    )
    tasks = ("--task", "made/sentiment", "--task", "made/tense", "--limit", "20")
    bare = run("evaluate", pico("llama"), *tasks, "--json")
    adapted = run("evaluate", pico("llama"), *tasks, "--adapter", "adapter", "--json")
    assert bare["adapter"] is None and adapted["adapter"] == "adapter"
    assert [score["task"] for score in adapted["scores"]] == ["made/sentiment", "made/tense"]
    for score in adapted["scores"]:
        assert score["n"] == 20 and score["low"] <= score["value"] <= score["high"]
    out = run("evaluate", pico("llama"), *tasks, "--adapter", "adapter", "--split", "validation")
    assert "llama with adapter, validation texts" in out and "95% interval" in out


def test_what_is_said_once_for_all_or_once_for_each(run, pico, tmp_path):
    folder = tmp_path / "classifier"
    with quiet():
        model = fresh_classifier(open_model(pico("bert")), LABELS)
        model.net.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
    (tmp_path / "more.txt").write_text("\n".join(PROBES[:20]))
    out = run(
        *(
            "transfer",
            "--source",
            folder,
            "--source",
            pico("gpt2"),
            "--source",
            pico("t5"),
            "--target",
            pico("llama"),
        ),
        *("--probes", "probes.txt", "--probes", "more.txt", "--probes", "more.txt", "--rank", "2", "--json"),
        *("--labels", "", "--labels", "yes,no", "--labels", "yes,no", "--cue", CUE, "--weights", "2,-1,1"),
        *("--route", "distill", "--steps", "2", "--out", "adapter"),
    )
    assert [(row["weight"], row["probes"]) for row in out["sources"]] == [(0.5, 25), (-0.25, 20), (0.25, 20)]
    assert out["history"][-1]["steps"] == 2 and out["folder"] == "adapter" and out["modules"] == 14
    card = json.loads((tmp_path / "adapter" / "umaf.json").read_text())["provenance"]
    assert [source["labels"] for source in card["sources"]] == [list(LABELS), ["yes", "no"], ["yes", "no"]]
    assert {source["cue"] for source in card["sources"]} == {CUE}


def test_a_config_file_says_the_same(run, pico, tmp_path):
    values = {
        "source": [str(pico("bert"))],
        "target": str(pico("llama")),
        "probes": ["probes.txt"],
        "labels": ["positive,negative"],
        "weights": "1",
        "rank": 2,
        "out": "adapter",
    }
    (tmp_path / "transfer.json").write_text(json.dumps(values))
    one = run("transfer", "--config", "transfer.json", "--json")
    words = [
        word for key, value in values.items() for word in (f"--{key}", value[0] if key in PER else value)
    ]
    two = run("transfer", *words, "--out", "again", "--json")
    assert one["history"] == two["history"] and one["sources"] == two["sources"]


PER = ("source", "probes", "labels")


def test_a_transfer_config_reads_words_and_lists():
    given = {"source": ["a"], "target": "t", "probes": ["p"], "out": "o"}
    typed = TransferConfig.model_validate({**given, "labels": ["x, y", ""], "weights": "1, -2"})
    listed = TransferConfig.model_validate({**given, "labels": [["x", "y"], []], "weights": [1, -2]})
    assert typed == listed and typed.labels == (("x", "y"), ()) and typed.weights == (1.0, -2.0)
    assert TransferConfig.model_validate({**given, "labels": "x,y"}).labels == (("x", "y"),)


def test_tasks_are_listed_without_a_model(run):
    out = run("evaluate", "--list")
    assert "made/sentiment" in out
    assert "made/tense" in run("evaluate", "--list", "--json")


def test_spread():
    assert spread("cue", ["a", "b"], 2, "") == ["a", "b"] and spread("cue", ["a"], 1, "") == ["a"]
    with pytest.raises(ConfigError, match="--cue was given 3 times for 2"):
        spread("cue", ["a", "b", "c"], 2, "")


def test_names_are_short_in_tables(tmp_path):
    assert [short(name) for name in (str(tmp_path / "x"), "./y", "org/z", "zoo:llama-1m")] == [
        "x",
        "y",
        "org/z",
        "zoo:llama-1m",
    ]


def test_stages_show_on_a_terminal_only(monkeypatch, capsys):
    with stages() as say:
        say("one")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with stages() as say:
        say("read [brackets]")
        say("two")
    shown = capsys.readouterr()
    assert shown.out == "" and "read [brackets]" in shown.err and "two" in shown.err
    with pytest.raises(KeyError), stages() as say:
        say("one")
        raise KeyError
