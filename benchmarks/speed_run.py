"""Run a program and take what it cost: wall and CPU seconds, and the most memory it held."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PEER = "0.1.5"
TOUCHED = 4 << 30
"""Bytes of memory that are touched before a run, more than any of the programs holds and writes."""

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True)
class Cost:
    """What a finished program cost.

    Attributes:
        wall: seconds from start to end.
        cpu: user and system seconds of it and its children.
        memory: most resident memory of its largest process, in MB; pages of mapped files count while they are mapped.
    """

    wall: float
    cpu: float
    memory: float


# A program's peak memory is at least that of the process that started it, so a small one in between starts it.
_LAUNCH = """
import json, os, resource, subprocess, sys, time
began = time.perf_counter()
code = subprocess.call(sys.argv[2:])
wall = time.perf_counter() - began
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as file:
    json.dump({"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "memory": usage.ru_maxrss}, file)
sys.exit(code)
"""


def cost_of(command: Sequence[str | os.PathLike]) -> Cost:
    """Run a command on one thread, and give what it cost.

    Raises:
        SystemExit: the command failed; what it said is shown.
    """
    with tempfile.TemporaryDirectory() as home:
        note = Path(home) / "cost.json"
        launcher = [sys.executable, "-S", "-c", _LAUNCH, note, *command]
        ended = subprocess.run(
            [os.fspath(part) for part in launcher],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **ONE_THREAD},
            check=False,
        )
        if ended.returncode:
            raise SystemExit(f"{' '.join(map(os.fspath, command))}\n{ended.stdout.decode()[-3000:]}")
        found = json.loads(note.read_text())
    return Cost(found["wall"], found["cpu"], found["memory"] / (1024 if sys.platform == "linux" else 1024**2))


def warm(models: Sequence[Path]) -> None:
    """Bring the models' files into the disk's cache, before each pair of runs: it may have lost them."""
    for path in models:
        for file in path.glob("*.safetensors"):
            with file.open("rb") as opened:
                while opened.read(1 << 24):
                    pass


def merge_cost(command: Sequence[str | os.PathLike], out: Path) -> Cost:
    """Cost of a command that writes a folder, which is removed before and kept after."""
    shutil.rmtree(out, ignore_errors=True)
    # What the last run left unwritten must not slow this one.
    os.sync()
    # A virtual machine gets memory from its host when it is first touched, at up to 3 s for 1 GB: to be had before.
    subprocess.run([sys.executable, "-S", "-c", f"b'1' * {TOUCHED}"], check=True)
    return cost_of([*command, out])


def mergekit() -> Path:
    """Give the program `mergekit-yaml`, installing it into an environment of its own on first use.

    The folder named by the variable UMAF_MERGEKIT, where set, is an environment that already has it.
    """
    home = Path(os.environ.get("UMAF_MERGEKIT") or ROOT / "out" / "peers" / f"mergekit-{PEER}")
    program = home / "bin" / "mergekit-yaml"
    if not program.exists():
        venv.create(home, with_pip=True)
        pip = [home / "bin" / "python", "-m", "pip", "install", "-q"]
        subprocess.run([*pip, "torch==2.13.0"], check=True)
        subprocess.run([*pip, f"mergekit=={PEER}"], check=True)
    return program
