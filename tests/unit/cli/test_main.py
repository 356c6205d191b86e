"""`main`: exit codes, one line for a mistake, commands found and not found."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import types

import pytest

from umaf.cli import app, main
from umaf.errors import OutputError, ProbeError


@pytest.fixture
def run(capsys, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def run(*words):
        with pytest.raises(SystemExit) as end:
            main(words)
        shown = capsys.readouterr()
        return end.value.code, shown.out, shown.err

    return run


@pytest.fixture
def probe(monkeypatch):
    """Install a command called `probe` whose body is the given function."""

    def install(function):
        module = types.ModuleType("umaf.cli.probe")
        module.probe = function
        module.__spec__ = types.SimpleNamespace(name="umaf.cli.probe")
        monkeypatch.setitem(sys.modules, "umaf.cli.probe", module)
        monkeypatch.setitem(app.COMMANDS, "probe", ("umaf.cli.probe", "For this test."))

    return install


def test_help_lists_every_command(run):
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    assert all(name in out for name in app.COMMANDS)


def test_version(run):
    assert run("--version")[:2] == (0, "0.1.0\n")


@pytest.mark.parametrize("kind", [ProbeError, OutputError])
def test_a_mistake_is_one_line_and_exit_1(run, probe, kind):
    def body():
        raise kind("3 probes were given,\nat least 16 are needed; add 13.")

    probe(body)
    assert run("probe") == (1, "", "umaf: 3 probes were given, at least 16 are needed; add 13.\n")


@pytest.mark.parametrize("words", [("--debug", "probe"), ("probe", "--debug")])
def test_debug_shows_where_a_mistake_was_made(probe, words):
    def body():
        raise ProbeError("no.")

    probe(body)
    with pytest.raises(ProbeError):
        main(words)


def test_a_bug_is_not_taken_for_a_mistake(probe):
    def body():
        raise ZeroDivisionError

    probe(body)
    with pytest.raises(ZeroDivisionError):
        main(["probe"])


def test_an_interruption_is_one_line_and_exit_130(run, probe):
    def body():
        raise KeyboardInterrupt

    probe(body)
    code, out, err = run("probe")
    assert (code, out) == (130, "") and err.startswith("umaf: interrupted") and err.count("\n") == 1


def test_an_interrupted_merge_says_that_it_can_be_gone_on_with(run, monkeypatch, tmp_path):
    def interrupted(*given, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("umaf.merging.stages.merge", interrupted)
    recipe = tmp_path / "recipe.yml"
    recipe.write_text("umaf: 1\nmethod: linear\nmodels: [a/first, a/second]\n")
    code, out, err = run("merge", str(recipe), str(tmp_path / "out"))
    assert (code, out) == (130, "") and "--resume goes on" in err and err.count("\n") == 1


def test_an_interrupted_build_says_that_it_goes_on(run, monkeypatch):
    def interrupted(*given, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("zoo.build.build", interrupted)
    assert run("zoo", "build") == (130, "", "umaf: interrupted; the same command goes on where it was.\n")


def test_words_after_two_dashes_are_left_alone(run, probe):
    def body(text: str):
        print(text)

    probe(body)
    assert run("probe", "--", "--debug")[:2] == (0, "--debug\n")


def test_an_unknown_command_suggests_one(run):
    code, _, err = run("evalute")
    assert code == 2 and "evaluate" in err


def test_an_unknown_option_is_exit_2(run):
    code, _, err = run("doctor", "--bogus")
    assert code == 2 and "--bogus" in err


def test_a_command_this_installation_lacks_is_one_line(run, monkeypatch):
    monkeypatch.setitem(app.COMMANDS, "later", ("umaf.cli.no_such_file", "Not here yet."))
    code, out, err = run("later")
    assert (code, out) == (1, "") and "'later'" in err and err.count("\n") == 1


def test_termination_cleans_up_and_exits_143(tmp_path):
    place = tmp_path / "result"
    code = f"""
import sys, time
from umaf.cli import app, main
from umaf.files import whole_folder
import types
def probe():
    with whole_folder({str(place)!r}):
        print("ready", flush=True)
        time.sleep(30)
module = types.ModuleType("umaf.cli.probe"); module.probe = probe
module.__spec__ = types.SimpleNamespace(name="umaf.cli.probe")
sys.modules["umaf.cli.probe"] = module
app.COMMANDS["probe"] = ("umaf.cli.probe", "x")
main(["probe"])
"""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        assert len(os.listdir(tmp_path)) == 1
        process.terminate()
        assert process.wait(20) == 143
        assert process.stderr is not None
        assert process.stderr.read() == "umaf: terminated; nothing half-written was kept.\n"
    assert os.listdir(tmp_path) == []
