"""Records are found below their folders, and nothing else is ever read."""

from __future__ import annotations

import io
import json
import os
import zipfile

import pytest

from tests.made_web import made_client
from umaf.evaluation.record import new_record, write_record
from umaf.monitor import Monitor
from umaf.pulse import tell
from umaf.serve.faults import Fault
from umaf.web import records as walked
from umaf.web.records import Records, run_of
from umaf.web.zips import zipped

FIGURE = {"a.b": {"value": 1, "low": 0, "high": 2, "n": 3, "aim": None}}


@pytest.fixture
def folder(tmp_path):
    """Records of three kinds, what is none, and links that lead out."""
    root = tmp_path / "records"
    (root / "one").mkdir(parents=True)
    (root / "one" / "summary.json").write_text(json.dumps(FIGURE))
    (root / "one" / "config.json").write_text("{}")
    (root / "one" / "notes.json").write_text("[1]")
    write_record(root / "2026-01-01.json", new_record("speed", config={}, numbers={"seconds": 1.0}))
    with Monitor(root / "run", name="a job"):
        for step in range(1000):
            tell("train", step, loss=1 / (step + 1))
    adapter = root / "adapter"
    adapter.mkdir()
    (adapter / "umaf.json").write_text(json.dumps({"target": "t", "provenance": {}}))
    (adapter / "adapter_config.json").write_text("{}")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "summary.json").write_text(json.dumps(FIGURE))
    (root / "linked.json").symlink_to(outside / "summary.json")
    (root / "away").symlink_to(outside, target_is_directory=True)
    (adapter / "linked.txt").symlink_to(outside / "summary.json")
    (root / ".hidden").mkdir()
    (root / ".hidden" / "summary.json").write_text(json.dumps(FIGURE))
    return root


@pytest.fixture
def client(folder, tmp_path):
    with made_client(tmp_path) as client:
        yield client


def kinds(client):
    return {one["kind"]: one for one in client.get("/api/records").json()}


def test_what_umaf_wrote_is_listed_and_nothing_from_elsewhere(client):
    found = client.get("/api/records").json()
    places = {one["place"]: one["kind"] for one in found}
    assert places == {
        "records/one/summary.json": "summary",
        "records/2026-01-01.json": "measured",
        "records/run/metrics.jsonl": "monitor",
        "records/adapter/umaf.json": "adapter",
    } or places == {
        "records/one/summary.json": "summary",
        "records/2026-01-01.json": "measured",
        "records/run/run.json": "monitor",
        "records/adapter/umaf.json": "adapter",
    }


def test_a_record_is_shown_as_its_report(client):
    page = client.get(f"/records/{kinds(client)['summary']['id']}.html")
    assert page.status_code == 200 and "What was measured" in page.text
    assert "sandbox" in page.headers["content-security-policy"]
    assert "script-src" not in page.headers["content-security-policy"]
    assert client.get(f"/records/{kinds(client)['summary']['id']}.html").text == page.text


@pytest.mark.parametrize(
    "id", ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2Fetc%2Fpasswd", "summary", "0" * 20]
)
def test_a_path_is_no_name_of_a_record(client, id):
    for path in (f"/records/{id}.html", f"/records/{id}.zip", f"/api/runs/{id}"):
        answer = client.get(path)
        assert answer.status_code == 404 and answer.json()["error"]["message"]


def test_a_run_is_thinned_and_keeps_its_ends(client):
    run = client.get(f"/api/runs/{kinds(client)['monitor']['id']}").json()
    (curve,) = run["curves"]
    assert run["state"] == "done" and curve["metric"] == "loss"
    assert len(curve["steps"]) <= 501 and curve["steps"][0] == 0 and curve["steps"][-1] == 999
    assert curve["values"][-1] == pytest.approx(0.001)
    assert client.get(f"/api/runs/{kinds(client)['summary']['id']}").status_code == 404


def test_a_number_that_was_none_is_null(tmp_path):
    with Monitor(tmp_path / "run", name="broken"):
        tell("train", 1, loss=float("nan"))
    run = run_of(tmp_path / "run")
    assert run["curves"][0]["values"] == [None] and run["alarms"]


def test_an_adapter_is_given_whole_without_links(client):
    found = client.get(f"/records/{kinds(client)['adapter']['id']}.zip")
    with zipfile.ZipFile(io.BytesIO(found.content)) as archive:
        assert archive.namelist() == ["adapter/adapter_config.json", "adapter/umaf.json"]
        assert archive.testzip() is None
    other = client.get(f"/records/{kinds(client)['summary']['id']}.zip")
    assert other.status_code == 404 and "no adapter" in other.json()["error"]["message"]


def test_a_zip_has_a_largest_size(folder, tmp_path):
    with pytest.raises(Fault, match="10 are given at most"):
        zipped(folder / "adapter", most=10)
    with pytest.raises(Fault, match="is not there"):
        zipped(tmp_path / "nothing", most=10)


def test_a_changed_record_is_read_again(folder):
    records = Records([folder])
    before = {one.id: one.kind for one in records.all()}
    (folder / "one" / "summary.json").write_text(json.dumps({"x": 1}))
    (folder / "later.json").write_text(json.dumps(FIGURE))
    records._at = -1e9
    after = {one.path.name: one.kind for one in records.all()}
    assert len(before) == 4 and after["later.json"] == "summary" and "summary.json" not in after


def test_a_walk_is_bounded(folder, monkeypatch):
    monkeypatch.setattr(walked, "MOST", 2)
    assert len(Records([folder]).all()) <= 2


def test_a_named_pipe_does_not_stop_it(folder):
    os.mkfifo(folder / "pipe.json")
    assert len(Records([folder]).all()) == 4
