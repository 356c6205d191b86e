"""Where a result comes from: package versions, the machine in words, the git commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict

_PACKAGES = ("umaf", "torch", "transformers", "peft", "numpy")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Machine(_Part):
    """What a measured time depends on: cores, the processor's model, memory in GiB."""

    cores: int
    cpu: str
    memory_gib: float | None


class Commit(_Part):
    """The project's git commit, and whether tracked files differed from it."""

    hash: str
    dirty: bool


def versions() -> dict[str, str | None]:
    """Give the versions a result can depend on; None for a package that is not installed.

    Example:
        >>> sorted(versions())
        ['numpy', 'peft', 'python', 'torch', 'transformers', 'umaf']
    """
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def machine() -> Machine:
    """Describe this machine without naming it.

    Example:
        >>> machine().cores >= 1
        True
    """
    # The cores this process may use, which in a container are fewer than the machine has.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cpu = platform.processor() or platform.machine() or "unknown"
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            cpu = next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        pass
    try:
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        memory = None
    return Machine(cores=cores or 1, cpu=cpu, memory_gib=memory)


def commit() -> Commit | None:
    """Give the commit of the checkout this package is run from, None where there is none.

    An installed copy may lie inside somebody else's checkout (a virtual environment in their
    project), so git must know this very file before its commit counts as ours.

    Example:
        >>> found = commit()
        >>> found is None or len(found.hash) >= 40
        True
    """
    here = Path(__file__).resolve()
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return None
    head = _git(here.parent, "rev-parse", "HEAD")
    changed = _git(here.parent, "status", "--porcelain", "--untracked-files=no")
    return Commit(hash=head.strip(), dirty=bool(changed)) if head else None


def _git(folder: Path, *command: str) -> str | None:
    """Run git in a folder; None where it fails or is not installed."""
    try:
        done = subprocess.run(
            ["git", *command],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
