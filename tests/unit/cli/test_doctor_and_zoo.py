"""`umaf doctor` and `umaf zoo list` say what is there, and survive what is not."""

from __future__ import annotations

import json
import signal
import struct

import pytest
from rich.console import Console

from umaf.cli import doctor, main, zoo
from umaf.errors import ModelError
from umaf.models import locate

CARD = "---\nlicense: apache-2.0\nlanguage: en\n---\n# tiny\n\nA bert of six parameters.\nSmall.\n\nMore.\n"


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    folder = tmp_path / "zoo" / "tiny"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 3, "vocab_size": 9}))
    header = json.dumps(
        {"__metadata__": {"format": "pt"}, "w": {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]}}
    ).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(12))
    (folder / "README.md").write_text(CARD)
    monkeypatch.setattr(locate, "ZOO", (tmp_path / "zoo", tmp_path / "nowhere"))
    return folder


def test_list_as_json(tiny, capsys):
    zoo.list_models(as_json=True)
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["family"], row["parameters"], row["width"]) == ("tiny", "bert", 6, 3)
    assert (row["licence"], row["about"]) == ("apache-2.0", "A bert of six parameters. Small.")
    assert row["layers"] is None and row["megabytes"] >= 0


def test_list_as_a_table(tiny, capsys):
    zoo.list_models()
    assert "tiny" in capsys.readouterr().out


def test_an_empty_zoo_says_how_to_build_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locate, "ZOO", (tmp_path,))
    zoo.list_models()
    assert "umaf zoo build" in capsys.readouterr().out


@pytest.mark.parametrize(
    "content", [b"", b"\x09", struct.pack("<Q", 10**12) + b"{}", struct.pack("<Q", 2) + b"{x"]
)
def test_broken_weights_are_a_model_error(tiny, content):
    (tiny / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="cannot be read"):
        zoo.describe(tiny)


def test_the_first_place_wins(tmp_path):
    for place in ("one", "two"):
        (tmp_path / place / "same").mkdir(parents=True)
        (tmp_path / place / "same" / "config.json").write_text("{}")
    assert zoo.model_folders([tmp_path / "one", tmp_path / "two"]) == [tmp_path / "one" / "same"]


@pytest.fixture
def run(monkeypatch, capsys):
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def run(*words):
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        shown = capsys.readouterr()
        return end.value.code, shown.out, shown.err

    return run


def test_doctor_as_json(tiny, run):
    code, out, err = run("doctor", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert found["core"]["torch"] and found["zoo"] == ["tiny"] and found["devices"][0].startswith("cpu")
    assert found["problems"] == [] and set(found["extras"]) == set(doctor.EXTRAS)
    assert found["tried"] == {"device": "cpu", "dtype": "float32", "works": True}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_doctor_tries_a_number_type(tiny, run, tmp_path, dtype):
    (tmp_path / "doctor.yaml").write_text(f"dtype: {dtype}\nseed: 3\n")
    typed = run("doctor", "--dtype", dtype, "--seed", 3, "--json")
    assert typed == run("doctor", "--config", tmp_path / "doctor.yaml", "--json")
    assert json.loads(typed[1])["tried"] == {"device": "cpu", "dtype": dtype, "works": True}
    assert f"cpu in {dtype}: works" in run("doctor", "--dtype", dtype)[1]


def test_doctor_tells_of_a_device_that_cannot_be_used_or_counts_wrongly(tiny, run, monkeypatch):
    code, out, _ = run("doctor", "--device", "abacus", "--json")
    found = json.loads(out)
    assert code == 1 and not found["tried"]["works"] and "'abacus' cannot be used" in found["problems"][0]
    monkeypatch.setattr(doctor, "RIGHT", 0.0)
    code, out, _ = run("doctor", "--dtype", "bfloat16", "--json")
    assert code == 1 and "wrongly" in json.loads(out)["problems"][0]


def test_doctor_reports_what_is_missing_and_exits_1(monkeypatch, run):
    monkeypatch.setattr(doctor, "CORE", ("torch", "no-such-package"))
    monkeypatch.setenv("UMAF_DATA", "/no/such/folder")
    code, out, _ = run("doctor")
    assert code == 1
    assert "no-such-package is needed" in out and "/no/such/folder" in out


def test_brackets_in_what_is_found_are_no_markup():
    console = Console(record=True, width=200)
    found = {**doctor.examine(), "data": "/data[bold]/x", "problems": ["[red]x[/red]"]}
    doctor.show(found, console)
    text = console.export_text()
    assert "/data[bold]/x" in text and "[red]x[/red]" in text
