"""Programs in the sandbox: right ones pass, and no wrong, greedy or leaving one does."""

from __future__ import annotations

import sys

import pytest

from umaf.errors import ConfigError, ExpertError
from umaf.experts.rewards import judge
from umaf.experts.sandbox import Limits, Sandbox, program_of
from umaf.tasks.task import Example

TEST = ("assert f([3, 1]) == 4",)
EXPRESSION = ("f = lambda x: ({answer})", *TEST)
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no process limits on Windows")


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(Limits(cpu_seconds=1, seconds=0.6, memory=128 * 2**20, output=4096)) as opened:
        yield opened


def test_right_and_wrong_expressions(sandbox):
    assert sandbox.passes("sum(x)", EXPRESSION)
    assert not sandbox.passes("max(x)", EXPRESSION)


def test_whole_programs(sandbox):
    assert sandbox.passes("def f(x):\n    return x[0] + x[1]", TEST)


@pytest.mark.parametrize("answer", ["sum(x", "x) or (4", "", "import os", "x = 4", "4\nimport os"])
def test_an_answer_that_is_no_expression_is_no_program(sandbox, answer):
    assert sandbox.verdict(answer, EXPRESSION) == "no program"
    assert program_of(answer, EXPRESSION) is None


@pytest.mark.parametrize(
    "program",
    [
        "import os\nos._exit(0)",
        "raise SystemExit(0)",
        "x = bytearray(10**9)",
        "print('a' * 10**6)",
        "import socket\nsocket.create_connection(('127.0.0.1', 9))",
        "import _socket\n_socket.socket()",
        "import os\nwhile True:\n    os.fork()",
        "import subprocess\nsubprocess.run(['true'], check=True)",
        "open('file', 'w').write('a' * 10**6)",
    ],
)
def test_a_program_that_does_what_it_may_not_fails(sandbox, program):
    assert sandbox.verdict(f"{program}\ndef f(x): return 4", TEST) in ("failed", "killed")


@pytest.mark.parametrize("program", ["while True: pass", "import time\ntime.sleep(60)"])
def test_a_program_without_end_is_ended(sandbox, program):
    assert sandbox.verdict(program, TEST) in ("time", "killed")


def test_the_sandbox_works_on_after_all_that(sandbox):
    assert sandbox.passes("def f(x): return 4", TEST)


def test_a_lost_server_is_started_again(sandbox):
    sandbox._server.kill()
    sandbox._server.wait()
    assert sandbox.passes("def f(x): return 2 + 2", TEST)


def test_nothing_is_left_when_it_closes():
    with Sandbox() as opened:
        folder, server = opened._folder.name, opened._server
    import os

    assert not os.path.exists(folder) and server.poll() is not None


def test_an_example_without_tests_is_no_silent_pass():
    with judge("code", run_code=True) as judged, pytest.raises(ExpertError, match="without tests"):
        judged(["1"], [Example("one", "1")])


def test_rewards_of_code():
    with judge("code", run_code=True) as judged:
        assert judged(["sum(x)", "x"], [Example("sum", "sum(x)", EXPRESSION)] * 2) == [1.0, -1.0]


def test_windows_is_told(monkeypatch):
    monkeypatch.setattr("umaf.experts.sandbox.sys.platform", "win32")
    with pytest.raises(ConfigError, match="Windows"):
        Sandbox()
