from __future__ import annotations

import getpass
import json
import socket
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from umaf.errors import ConfigError, OutputError
from umaf.evaluation import provenance
from umaf.evaluation.record import new_record, plain, read_record, write_record
from umaf.evaluation.summary import Figure, read_summary, write_summary


def test_a_record_survives_the_file(tmp_path: Path):
    record = new_record(
        "transfer", config={"rank": 8, "depths": (0.5, 1.0)}, seed=3, numbers={"tense": {"solve": 0.5}}
    )
    write_record(tmp_path / "record.json", record)
    assert read_record(tmp_path / "record.json") == record
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]


def test_a_record_tells_of_no_place(tmp_path: Path):
    config = {
        "out": tmp_path / "run",
        "probes": str(tmp_path / "probes.txt"),
        "models": [Path("/a/b")],
        "cue": "x",
    }
    text = new_record("transfer", config=config, numbers={}).model_dump_json()
    assert json.loads(text)["config"] == {"out": "run", "probes": "probes.txt", "models": ["b"], "cue": "x"}
    assert str(tmp_path) not in text and str(Path.home()) not in text
    assert socket.gethostname() not in text
    assert f'"{getpass.getuser()}"' not in text


def test_times_are_utc():
    moment = datetime(2026, 3, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert new_record("a", config={}, numbers={}, started=moment).started == "2026-02-28T23:30:00+00:00"


def test_numbers_become_json():
    data = {
        "nan": float("nan"),
        "numpy": np.float32(0.5),
        "bad": np.float64("inf"),
        "array": np.arange(2),
        "tensor": torch.tensor(2.0),
        3: {"set": {"b", "a"}, "yes": True, "none": None},
    }
    expected = {
        "nan": None,
        "numpy": 0.5,
        "bad": None,
        "array": [0, 1],
        "tensor": 2.0,
        "3": {"set": ["a", "b"], "yes": True, "none": None},
    }
    assert plain(data) == expected
    json.dumps(plain(data), allow_nan=False)


def test_a_record_is_frozen():
    with pytest.raises(ValidationError):
        new_record("a", config={}, numbers={}).kind = "b"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda d: d.pop("seed"), "seed"),
        (lambda d: d.update(extra=1), "extra"),
        (lambda d: d.update(started="yesterday"), "started"),
        (lambda d: d["machine"].update(host="h"), "machine.host"),
    ],
)
def test_a_faulty_record_is_refused_in_one_sentence(tmp_path: Path, change, word: str):
    data = new_record("a", config={}, numbers={}).model_dump()
    change(data)
    file = tmp_path / "record.json"
    file.write_text(json.dumps(data))
    with pytest.raises(ConfigError, match=word) as found:
        read_record(file)
    assert "\n" not in str(found.value)


def test_files_that_are_no_records(tmp_path: Path):
    (tmp_path / "text").write_text("hello")
    for name in ("text", "missing"):
        with pytest.raises(ConfigError, match=name):
            read_record(tmp_path / name)
        with pytest.raises(ConfigError, match=name):
            read_summary(tmp_path / name)


def test_a_record_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        write_record(tmp_path / "file" / "record.json", new_record("a", config={}, numbers={}))


def test_commit_is_the_projects_own_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def git(*words: str) -> None:
        who = ["-c", "user.name=n", "-c", "user.email=e@example.invalid"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    ours, theirs = tmp_path / "ours.py", tmp_path / "theirs.py"
    for file in (ours, theirs):
        file.write_text("1\n")
    monkeypatch.setattr(provenance, "__file__", str(ours))
    assert provenance.commit() is None
    git("init", "-q")
    git("add", "ours.py")
    git("commit", "-qm", "one")
    found = provenance.commit()
    assert found is not None and len(found.hash) >= 40 and not found.dirty
    ours.write_text("2\n")
    assert provenance.commit().dirty
    monkeypatch.setattr(provenance, "__file__", str(theirs))
    assert provenance.commit() is None


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    assert provenance.commit() is None


def test_machine_and_versions():
    machine = provenance.machine()
    assert machine.cores >= 1 and machine.cpu
    assert provenance.versions()["torch"].startswith(torch.__version__.split("+")[0])


def test_summary_is_flat_and_has_null_for_nan(tmp_path: Path):
    file = tmp_path / "summary.json"
    figures = {
        "recovery.solve": Figure(0.7, 0.6, float("nan"), n=12, aim=">= 0.70"),
        "cells": Figure(12, n=12),
    }
    write_summary(file, figures)
    assert json.loads(file.read_text())["recovery.solve"] == {
        "value": 0.7,
        "low": 0.6,
        "high": None,
        "n": 12,
        "aim": ">= 0.70",
    }
    assert read_summary(file)["cells"] == figures["cells"]
