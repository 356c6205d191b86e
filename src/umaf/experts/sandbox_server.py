"""The process behind the sandbox: reads jobs as lines of JSON, forks a child for each, answers with a verdict.

Run as a script with the standard library alone; it imports nothing of umaf.
"""

from __future__ import annotations

import _socket
import contextlib
import ctypes
import importlib
import json
import os
import resource
import secrets
import shutil
import signal
import socket
import sys
import time

NOBODY = 65534
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
# What programs like to import: read once here, since nobody may not be allowed to read this Python's folder.
LIBRARY = (
    "array bisect cmath collections copy datetime decimal enum fractions functools heapq itertools json math operator "
    "queue random re statistics string textwrap time typing"
).split()


def main(folder: str) -> None:
    """Answer jobs until the input ends."""
    os.chmod(folder, 0o755)
    for name in LIBRARY:
        importlib.import_module(name)
    print(json.dumps({"network": cut_network()}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        place = os.path.join(folder, "work")
        os.mkdir(place, 0o700)
        try:
            print(json.dumps({"verdict": run(job, place)}), flush=True)
        finally:
            shutil.rmtree(place, ignore_errors=True)


def cut_network() -> str:
    """Leave the network for an empty one; "namespace" where the system allows it, otherwise "blocked"."""
    try:
        unshare = ctypes.CDLL(None, use_errno=True).unshare
    except (OSError, AttributeError):
        return "blocked"
    flags = CLONE_NEWNET if os.geteuid() == 0 else CLONE_NEWUSER | CLONE_NEWNET
    return "namespace" if unshare(flags) == 0 else "blocked"


def run(job: dict, place: str) -> str:
    """Run one program in a child, and say how it went."""
    secret = secrets.token_bytes(16)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            confine(job, place, writing)
            judge(job["program"], job["tests"], writing, secret)
        finally:
            os._exit(1)
    os.close(writing)
    ended = wait(child, job["seconds"])
    os.set_blocking(reading, False)
    try:
        told = os.read(reading, 64)
    except BlockingIOError:
        told = b""
    os.close(reading)
    if told == secret:
        return "passed"
    return "time" if ended is None else ("killed" if ended < 0 else "failed")


def wait(child: int, seconds: float) -> int | None:
    """Wait for a child; kill it and all it started when its time is over (None)."""
    until, pause = time.monotonic() + seconds, 0.0005
    ended = None
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            ended = os.waitstatus_to_exitcode(status)
            break
        time.sleep(pause)
        pause = min(0.02, pause * 1.5)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    if ended is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return ended


def confine(job: dict, place: str, keep: int) -> None:
    """Give up all that a program does not need."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    told = os.open(os.path.join(place, "output"), os.O_CREAT | os.O_WRONLY, 0o600)
    os.dup2(null, 0)
    os.dup2(told, 1)
    os.dup2(told, 2)
    for number in range(3, 256):
        if number != keep:
            with contextlib.suppress(OSError):
                os.close(number)
    os.chdir(place)
    limits = {
        resource.RLIMIT_CPU: (job["cpu_seconds"], job["cpu_seconds"] + 1),
        resource.RLIMIT_FSIZE: (job["output"], job["output"]),
        resource.RLIMIT_NOFILE: (32, 32),
        resource.RLIMIT_CORE: (0, 0),
    }
    if os.geteuid() == 0:
        # Root is above the limit on processes; nobody is not, and owns nothing.
        os.chown(place, NOBODY, NOBODY)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    for kind, value in limits.items():
        lower(kind, value)
    lower(resource.RLIMIT_AS, (job["memory"], job["memory"]))
    lower(resource.RLIMIT_NPROC, (0, 0))
    block_sockets()


def lower(kind: int, value: tuple[int, int]) -> None:
    """Set a limit, or the lower one that is already there; a system that lacks it goes without."""
    with contextlib.suppress(ValueError, OSError):
        _, most = resource.getrlimit(kind)
        if most != resource.RLIM_INFINITY:
            value = (min(value[0], most), min(value[1], most))
        resource.setrlimit(kind, value)


def block_sockets() -> None:
    """Make Python's own door to the network fail; the system's is closed by the namespace."""

    def refused(*_: object, **__: object) -> None:
        raise PermissionError("no network in here")

    socket.socket = socket.create_connection = refused  # type: ignore[assignment,misc]
    _socket.socket = refused  # type: ignore[attr-defined,assignment,misc]


def judge(program: str, tests: str, writing: int, secret: bytes) -> None:
    """Run a program and its tests in one name space; tell the secret when all went through."""
    names: dict = {"__name__": "program"}
    try:
        exec(compile(program, "program", "exec"), names)
        exec(compile(tests, "tests", "exec"), names)
    except BaseException:  # a program that leaves early has failed, however it leaves
        os._exit(1)
    os.write(writing, secret)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
