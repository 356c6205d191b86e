"""The queue of jobs, with short programs in the place of umaf's commands."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from tests.made_web import made_client
from tests.texts import PROBES
from umaf.serve.faults import Fault
from umaf.web.forms import Order
from umaf.web.jobs import Jobs

FORM = {"source": "zoo:gpt2-1m", "target": "zoo:bert-1m", "probes": "\n".join(PROBES)}


def until(check, seconds=30.0):
    """Wait for something that another thread does."""
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def jobs(tmp_path):
    found = Jobs(tmp_path / "jobs", waiting=2, python=(sys.executable, "-S", "-c"))
    yield found
    found.close()


def program(text):
    return lambda folder: Order("transfer", (text,), {"probes.txt": "a\n"}, folder / "adapter")


SLEEP = "import time; print('begun', flush=True); time.sleep(60)"


def test_jobs_run_one_after_the_other(jobs):
    mark = jobs.folder.parent / "mark"
    alone = f"import os, time; os.mkdir({str(mark)!r}); time.sleep(.2); os.rmdir({str(mark)!r})"
    made = [jobs.submit(program(alone)) for _ in range(2)]
    until(lambda: all(jobs.get(job.id).state == "done" for job in made))
    first, second = (jobs.get(job.id) for job in made)
    assert str(first.ended) <= str(second.started) and first.error is None
    assert [job.id for job in jobs.all()] == [second.id, first.id]
    assert (jobs.folder / first.id / "probes.txt").read_text() == "a\n"


def test_the_sentence_of_a_failed_command_is_kept(jobs):
    job = jobs.submit(
        program("import sys; print('reading'); sys.exit('umaf: There is no model x; check it.')")
    )
    until(lambda: jobs.get(job.id).state == "failed")
    assert jobs.get(job.id).error == "There is no model x; check it." and "reading" in jobs.log(job.id)
    broken = jobs.submit(program("raise SystemExit(3)"))
    until(lambda: jobs.get(broken.id).state == "failed")
    assert (
        jobs.get(broken.id).error == "The command ended with code 3 and said nothing; the log may say more."
    )


def test_a_running_job_is_cancelled_and_the_next_one_runs(jobs):
    job = jobs.submit(program(SLEEP))
    after = jobs.submit(program("print('after')"))
    until(lambda: "begun" in jobs.log(job.id))
    (jobs.folder / job.id / ".adapter.1234.part").mkdir()
    jobs.cancel(job.id)
    until(lambda: jobs.get(after.id).state == "done")
    assert jobs.get(job.id).state == "cancelled" and jobs.get(job.id).error is None
    assert not list((jobs.folder / job.id).glob(".*.part"))
    assert jobs.cancel(after.id).state == "done"


def test_a_waiting_job_is_cancelled_and_only_so_many_wait(jobs):
    running = jobs.submit(program(SLEEP))
    until(lambda: jobs.get(running.id).state == "running")
    waiting = [jobs.submit(program("print(1)")) for _ in range(2)]
    with pytest.raises(Fault, match="2 jobs wait already"):
        jobs.submit(program("print(1)"))
    assert len(list(jobs.folder.iterdir())) == 3
    assert jobs.cancel(waiting[0].id).state == "cancelled"
    jobs.submit(program("print(1)"))
    with pytest.raises(Fault, match="no job"):
        jobs.cancel("../../etc")


def test_a_server_that_ends_takes_its_job_along_and_the_next_one_remembers(tmp_path):
    jobs = Jobs(tmp_path / "jobs", waiting=2, python=(sys.executable, "-S", "-c"))
    done = jobs.submit(program("print(1)"))
    running = jobs.submit(program(SLEEP))
    until(lambda: "begun" in jobs.log(running.id))
    waiting = jobs.submit(program("print(1)"))
    jobs.close()
    assert jobs.get(running.id).state == "stopped"
    (tmp_path / "jobs" / "odd").mkdir()
    (tmp_path / "jobs" / "odd" / "job.json").write_text(json.dumps({"id": "../x"}))
    again = Jobs(tmp_path / "jobs", waiting=2)
    states = {job.id: job.state for job in again.all()}
    again.close()
    assert states == {done.id: "done", running.id: "stopped", waiting.id: "stopped"}


def test_the_page_shows_previews_and_refuses(tmp_path):
    with made_client(tmp_path) as client:
        shown = client.post("/api/preview", json={"command": "transfer", "form": FORM}).json()
        assert shown["error"] is None and shown["command"].startswith(
            "umaf transfer \\\n    --source zoo:gpt2-1m"
        )
        assert "--out JOB/adapter" in shown["command"] and "probes.txt" in shown["files"]
        wrong = client.post(
            "/api/preview", json={"command": "transfer", "form": {**FORM, "target": "/etc"}}
        ).json()
        assert wrong["command"] is None and "outside the folders" in wrong["error"]
        refused = client.post("/api/jobs", json={"command": "transfer", "form": {**FORM, "rank": "x"}})
        assert refused.status_code == 400 and "The field rank" in refused.json()["error"]["message"]
        assert client.post("/api/jobs", json={"command": "transfer"}).status_code == 400
        assert client.get("/api/jobs").json() == [] and not list(Path(tmp_path / "jobs").glob("*"))
        assert client.get("/api/jobs/nowhere").status_code == 404
        assert client.get("/api/jobs/nowhere/result.zip").status_code == 404


def test_a_job_of_the_page_has_its_state_and_nothing_to_download_before_its_end(tmp_path):
    with made_client(tmp_path) as client:
        client.desk.jobs._python = (sys.executable, "-S", "-c", SLEEP)
        started = client.post("/api/jobs", json={"command": "transfer", "form": FORM})
        assert started.status_code == 201
        id = started.json()["id"]
        until(lambda: "begun" in client.get(f"/api/jobs/{id}").json()["log"])
        found = client.get(f"/api/jobs/{id}").json()
        assert found["state"] == "running" and found["run"] is None and "words" not in found
        assert str(tmp_path) not in found["line"] and f"jobs/{id}/adapter" in found["line"]
        early = client.get(f"/api/jobs/{id}/result.zip")
        assert early.status_code == 404 and "is running" in early.json()["error"]["message"]
        assert client.post(f"/api/jobs/{id}/cancel", json={}).status_code == 200
        until(lambda: client.get(f"/api/jobs/{id}").json()["state"] == "cancelled")
