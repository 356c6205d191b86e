"""Programs a model wrote, run against tests where they can do little harm.

A small server process (no packages, no environment, no network where the system allows that) forks one child per
program. A child has limits on processor time, memory, output, files and processes, an empty folder to work in, and no
user to be where the server is root. It is killed when its time is over. A program passes when all of its tests ran
through: the child then writes a secret that the server made for it; leaving early with any exit code does not pass.

This holds careless and confused programs. It is no jail for a determined attacker: files the user may read can be read,
and a program that searches its own process finds the secret. Run code of people you do not trust in a machine of its
own.
"""

from __future__ import annotations

import ast
import json
import select
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from umaf.errors import ConfigError, ExpertError

_SERVER = Path(__file__).with_name("sandbox_server.py")


@dataclass(frozen=True)
class Limits:
    """What one program may use.

    Attributes:
        cpu_seconds: processor time, whole seconds.
        seconds: time on the clock.
        memory: bytes of address space.
        output: bytes it may write, to its output and to every file.

    Example:
        >>> Limits(seconds=1.0).cpu_seconds
        1
    """

    cpu_seconds: int = 1
    seconds: float = 2.0
    memory: int = 256 * 2**20
    output: int = 64 * 2**10


def program_of(answer: str, tests: Sequence[str]) -> str | None:
    """Give the program that an answer stands for; None where it is no Python.

    Args:
        answer: a program, or an expression where the first test says how it becomes a program.
        tests: `Example.tests`.

    Example:
        >>> program_of("len(x)", ("f = lambda x: ({answer})", "assert f([1]) == 1"))
        'f = lambda x: (len(x))'
        >>> program_of("len(x", ("f = lambda x: ({answer})",)) is None
        True
    """
    is_expression = bool(tests) and "{answer}" in tests[0]
    try:
        # The expression is read alone, so that no bracket of it can close one of the frame.
        ast.parse(answer.strip(), mode="eval" if is_expression else "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return tests[0].replace("{answer}", answer.strip()) if is_expression else answer


class Sandbox:
    """A server that runs programs, alive inside a ``with`` block.

    Args:
        limits: what one program may use.

    Raises:
        ConfigError: this system has no limits on processes (Windows).

    Example:
        >>> with Sandbox() as sandbox:
        ...     sandbox.passes("def f(x): return x + 1", ["assert f(1) == 2"])
        True
    """

    def __init__(self, limits: Limits = Limits()) -> None:
        if sys.platform == "win32":
            raise ConfigError(
                'The reward "code" needs process limits, which Windows lacks; use Linux or macOS.'
            )
        self.limits = limits
        self.network = ""
        self._server: subprocess.Popen[str] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._known: dict[tuple[str, tuple[str, ...]], str] = {}

    def __enter__(self) -> Sandbox:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def passes(self, answer: str, tests: Sequence[str]) -> bool:
        """Say whether an answer passes its tests; the same question is run once.

        Raises:
            ExpertError: there are no tests.
        """
        return self.verdict(answer, tests) == "passed"

    def verdict(self, answer: str, tests: Sequence[str]) -> str:
        """Run an answer against its tests.

        Returns:
            "passed", "failed", "no program", "time" or "killed".

        Raises:
            ExpertError: there are no tests, or the server does not run.
        """
        checks = tuple(test for test in tests if "{answer}" not in test)
        if not checks:
            raise ExpertError(
                'The reward "code" was asked to judge an example without tests; give the example tests, or choose '
                "another reward."
            )
        program = program_of(answer, tests)
        if program is None:
            return "no program"
        key = (program, checks)
        if key not in self._known:
            self._known[key] = self._ask(
                {"program": program, "tests": "\n".join(checks), **asdict(self.limits)}
            )
        return self._known[key]

    def _ask(self, job: dict[str, object]) -> str:
        if self._server is None or self._server.poll() is not None:
            self._stop()
            self._start()
        server = self._server
        if server is None or server.stdin is None or server.stdout is None:
            raise ExpertError(
                "The sandbox was asked to run a program, but it is not open; use it in a with block."
            )
        try:
            server.stdin.write(json.dumps(job) + "\n")
            server.stdin.flush()
        except OSError:
            return "killed"
        # The server keeps the time itself; a server that is silent for longer is lost, and so is what it ran.
        ready, _, _ = select.select([server.stdout], [], [], self.limits.seconds + 10)
        line = server.stdout.readline() if ready else ""
        if not line:
            self._stop()
            return "killed"
        return json.loads(line)["verdict"]

    def _start(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="umaf-sandbox-")
        command = [sys.executable, "-I", "-S", "-B", str(_SERVER), self._folder.name]
        self._server = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={},
            start_new_session=True,
        )
        first = self._server.stdout.readline() if self._server.stdout else ""
        if not first:
            self._stop()
            raise ExpertError("The sandbox did not start; check that this Python can start processes.")
        self.network = json.loads(first)["network"]

    def _stop(self) -> None:
        if self._server is not None:
            self._server.kill()
            for pipe in (self._server.stdin, self._server.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()
            self._server.wait()
            self._server = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
