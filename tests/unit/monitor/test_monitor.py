from __future__ import annotations

import json
import math
import signal
import sys
import types
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from tests.texts import PROBES
from umaf.activations import capture
from umaf.cli import main
from umaf.cli.monitor import course
from umaf.errors import ConfigError, FingerprintError, NumericalError
from umaf.extraction import extract
from umaf.models import open_model
from umaf.monitor import Alarms, Monitor, drift, read_run, silhouettes
from umaf.monitor.alarms import collapsed, spread
from umaf.monitor.drift import checkpoints_of
from umaf.pulse import heard, listening, tell


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def run(*words, code=0):
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        shown = capsys.readouterr()
        assert end.value.code == code
        if code:
            return shown.err
        return json.loads(shown.out) if "--json" in words else shown.out

    return run


def test_a_listener_hears_only_inside_its_block():
    first, second = [], []
    tell("a", 1, loss=1.0)
    with listening(lambda *said: first.append(said)):
        with listening(lambda *said: second.append(said)):
            tell("a", 2, loss=0.5)
            assert heard()
        tell("a", 3, loss=0.4)
    assert not heard() and [step for _, step, _ in first] == [2, 3] and len(second) == 1


def test_a_run_is_written_line_by_line_and_read_while_it_runs(tmp_path):
    with Monitor(tmp_path / "run", name="a test", config={"rank": 2}):
        tell("train", 1, loss=2.0, rate=0.1)
        tell("train", 2, loss=1.0)
        during = read_run(tmp_path / "run")
        assert during.state == "running" and during.curves["train"]["loss"] == ([1, 2], [2.0, 1.0])
        with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
            file.write('{"time": 1, "job": "tra')
        assert read_run(tmp_path / "run").curves == during.curves
    after = read_run(tmp_path / "run")
    assert after.state == "done" and after.about["config"] == {"rank": 2} and after.error is None
    assert during.curves["train"]["rate"] == ([1], [0.1])


def test_a_job_that_fails_says_why_and_one_that_vanished_has_stopped(tmp_path):
    with pytest.raises(RuntimeError), Monitor(tmp_path / "run", name="x"):
        tell("train", 1, loss=1.0)
        raise RuntimeError("no memory")
    assert (read_run(tmp_path / "run").state, read_run(tmp_path / "run").error) == ("failed", "no memory")
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    # No process has this number: the highest is far below.
    (tmp_path / "run" / "run.json").write_text(json.dumps({**about, "state": "running", "process": 2**30}))
    assert read_run(tmp_path / "run").state == "stopped"


def test_a_damaged_file_is_an_error_with_its_line(tmp_path):
    with pytest.raises(ConfigError, match=r"no metrics\.jsonl"):
        read_run(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"time": 1, "job": "a", "step": 1}\nnonsense\n{}\n')
    with pytest.raises(ConfigError, match="line 2"):
        read_run(tmp_path)


def test_nan_and_collapse_are_alarms_given_once(tmp_path):
    with Monitor(tmp_path / "run", name="x"):
        for step in range(12):
            tell("train", step, loss=math.nan if step > 8 else 1.0, spread=0.5 if step < 6 else 1e-9)
    found = read_run(tmp_path / "run")
    assert [one.split(" at ")[1] for one in found.alarms] == ["step 6", "step 9"]
    assert "collapsed" in found.alarms[0] and "not a number" in found.alarms[1]
    assert math.isnan(found.curves["train"]["loss"][1][-1])


def test_an_alarm_comes_back_after_it_was_well():
    alarms = Alarms()
    said = [alarms.watch("t", step, {"loss": value}) for step, value in enumerate((1, math.inf, 1, math.inf))]
    assert [len(each) for each in said] == [0, 1, 0, 1]
    calm = Alarms()
    assert [calm.watch("t", step, {"loss": 1.0 + step % 3, "spread": 0.5}) for step in range(40)] == [[]] * 40
    assert any(calm.watch("t", 41, {"loss": 50.0}))


def test_spread_and_collapse():
    draw = np.random.default_rng(0)
    assert spread(draw.standard_normal((50, 64))) == pytest.approx(1.0, abs=0.05)
    assert collapsed(draw.standard_normal((5, 8)), "abcde") is None
    assert "collapsed" in str(collapsed(np.ones((5, 8)), "abcde"))
    assert "NaN" in str(collapsed(np.full((5, 8), np.nan), "abcde"))
    with pytest.raises(NumericalError):
        spread([[1.0]])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(find_spec("tensorboard") is None, reason="TensorBoard is not installed")
def test_tensorboard_gets_the_numbers(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Monitor(tmp_path / "run", name="x", to=["tensorboard"]):
        tell("train", 1, loss=0.5)
        tell("train", 2, loss=math.nan)
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    assert [(one.step, one.value) for one in events.Scalars("train/loss")] == [(1, 0.5)]


def test_weights_and_biases_get_the_numbers_where_installed(tmp_path, monkeypatch):
    logged, ended = [], []
    fake = types.ModuleType("wandb")
    fake.__spec__ = types.SimpleNamespace(name="wandb")  # type: ignore[assignment]
    made = types.SimpleNamespace(log=logged.append, finish=lambda: ended.append(True))
    fake.init = lambda **_: made  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with Monitor(tmp_path / "run", name="x", to=["wandb"]):
        tell("train", 7, loss=0.5)
    assert logged == [{"train/step": 7, "train/loss": 0.5}] and ended == [True]


def test_a_place_that_is_not_there_is_said_before_the_run_begins(tmp_path):
    with (
        pytest.raises(ConfigError, match="tensorboard and wandb"),
        Monitor(tmp_path / "a", name="x", to=["x"]),
    ):
        pass
    assert not heard()


def test_readings_and_trainings_tell_their_numbers(pico):
    from umaf.generation.goals import Goal
    from umaf.generation.train import Schedule, train_lora

    model = open_model(pico("llama"))
    said = []
    with listening(lambda job, step, numbers: said.append((job, step, dict(numbers)))):
        capture(model, PROBES, batch_size=10)
        goal = Goal(tuple(PROBES[:16]), "sentiment", (), torch.empty(16, 0), ("good",) * 16)
        train_lora(model, [goal], rank=1, schedule=Schedule(steps=2, batch_size=4))
    jobs = [job.split(" ")[0] for job, _, _ in said]
    assert jobs.count("read") == 3 and jobs.count("train") == 2
    assert all(numbers.get("spread", 1) > 0 for _, _, numbers in said)
    assert set(said[-1][2]) == {"loss", "gradient", "rate"} and said[-1][2]["loss"] > 0


def test_silhouettes_tell_what_fingerprints_gather_by():
    draw = np.random.default_rng(0)
    kinds, builds = ["a", "b", "c"] * 6, ["x"] * 9 + ["y"] * 9
    middles = {name: draw.standard_normal(32) for name in (*kinds, *builds)}

    def table(by):
        return np.stack([middles[name] for name in by]) + 0.3 * draw.standard_normal((18, 32))

    found = silhouettes(table(kinds), kinds, builds)
    assert found.capability is not None and found.architecture is not None
    assert found.capability.value > 0.5 > 0.2 > found.architecture.value and found.alarm is None
    found = silhouettes(table(builds), kinds, builds)
    assert found.architecture is not None and found.architecture.value > 0.5
    few = silhouettes(np.eye(3), ["a", "b", "c"], ["x", "x", "x"])
    assert few.capability is None and few.architecture is None
    assert silhouettes(np.ones((4, 3)), ["a", "a", "b", "b"], list("xyxy")).alarm
    with pytest.raises(FingerprintError):
        silhouettes(np.eye(3), ["a"], ["b"])


@pytest.fixture
def checkpoints(pico, tmp_path):
    """Four steps away from a base, each further than the one before."""
    model = open_model(pico("gpt2"))
    generator = torch.Generator().manual_seed(0)
    changes = [torch.randn(p.shape, generator=generator) for p in model.net.parameters()]
    for step in (10, 20, 100):
        with torch.no_grad():
            for parameter, change in zip(model.net.parameters(), changes, strict=True):
                parameter.add_(0.02 * change)
        model.net.save_pretrained(tmp_path / "run" / f"checkpoint-{step}")
        model.tokenizer.save_pretrained(tmp_path / "run" / f"checkpoint-{step}")
    return tmp_path / "run"


def test_drift_grows_along_a_run(checkpoints, pico):
    paths = checkpoints_of(checkpoints)
    assert [path.name for path in paths] == ["checkpoint-10", "checkpoint-20", "checkpoint-100"]
    rows = drift(open_model(pico("gpt2")), paths, PROBES)
    assert [row.step for row in rows] == [10, 20, 100] and math.isnan(rows[0].turned)
    assert rows[0].strength < rows[1].strength < rows[2].strength
    assert rows[0].left > rows[1].left > rows[2].left == pytest.approx(0.0, abs=1e-6)
    still = drift(open_model(pico("gpt2")), [pico("gpt2")], PROBES)
    assert "like its base" in still[0].alarms[0]


def test_the_command_shows_a_run(run, tmp_path):
    with Monitor(tmp_path / "run", name="a [test]"):
        for step in range(5):
            tell("train", step, loss=1.0 / (step + 1))
        tell("train", 5, loss=math.nan)
    shown = run("monitor", "run")
    assert "a [test]" in shown and "done" in shown and "not a number" in shown and "loss" in shown
    found = run("monitor", "run", "--json")
    assert (
        found["metrics"]["train"]["loss"]["least"] == 0.2
        and found["metrics"]["train"]["loss"]["last"] is None
    )
    assert len(found["alarms"]) == 1
    assert "no metrics.jsonl" in run("monitor", tmp_path, code=1)


def test_the_command_shows_drift_and_clusters(run, checkpoints, pico, tmp_path):
    (tmp_path / "probes.txt").write_text("\n".join(PROBES))
    words = ("monitor", "run", "--drift", "--base", pico("gpt2"), "--probes", "probes.txt")
    found = run(*words, "--json")
    assert [row["step"] for row in found["checkpoints"]] == [10, 20, 100]
    assert found["checkpoints"][0]["turned"] is None and "checkpoint-100" in run(*words)
    for name, kind in (("one", "bert"), ("one", "gpt2"), ("two", "llama"), ("two", "opt")):
        model = open_model(pico(kind))
        extract(model, PROBES).save(tmp_path / "prints" / f"{name}-{kind}.safetensors")
    found = run("monitor", "prints", "--clusters", "--json")
    assert found["fingerprints"] == 4 and found["capability"]["n"] == 2 and found["architecture"] is None
    assert "silhouette by capability" in run("monitor", "prints", "--clusters")
    assert "--base and --probes" in run("monitor", "run", "--drift", code=1)


def test_a_course_is_as_wide_as_asked():
    assert len(course([float(number) for number in range(1000)], width=20)) == 20
    assert course([1.0, 1.0]) == "▁▁" and course([math.nan]) == " " and course([]) == ""
