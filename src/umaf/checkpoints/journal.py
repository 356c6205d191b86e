"""The journal of a draft: one line for what decides the result, and one for each tensor that is whole."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from umaf.errors import OutputError

try:
    import fcntl
except ImportError:  # a system without it: runs are not kept from writing to the same place
    fcntl = None

JOURNAL = ".journal.jsonl"


class Journal:
    """A journal, open and locked: nobody else writes to its draft meanwhile.

    Args:
        folder: the draft.

    Raises:
        OutputError: it cannot be written, or another run holds it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as problem:
            raise OutputError(
                f"{folder} cannot be written ({problem.strerror}); give another place."
            ) from problem
        if not _lock(self._file):
            os.close(self._file)
            raise OutputError(f"Another run is writing {folder}; wait for it, or give another place.")

    def read(self) -> list[dict[str, Any]]:
        """Give the lines of an earlier run, and drop what a kill left of its last."""
        rows, kept = [], 0
        for line in self.path.read_bytes().splitlines(keepends=True):
            try:
                row = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                row = None
            if not isinstance(row, dict):
                break
            rows.append(row)
            kept += len(line)
        os.ftruncate(self._file, kept)
        return rows

    def clear(self) -> None:
        """Begin anew."""
        os.ftruncate(self._file, 0)

    def note(self, row: Mapping[str, Any]) -> None:
        """Add a line, in one piece.

        Raises:
            OutputError: the disk is full.
        """
        line = json.dumps(row).encode() + b"\n"
        try:
            if os.write(self._file, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as problem:
            raise OutputError(f"{self.path} cannot be written ({problem.strerror}); make room.") from problem

    def close(self, *, remove: bool = False) -> None:
        """Let go of it, and remove it where the draft is whole."""
        if remove:
            self.path.unlink(missing_ok=True)
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def is_held(folder: Path) -> bool:
    """Tell whether a run is writing to a draft now."""
    try:
        file = os.open(folder / JOURNAL, os.O_RDWR)
    except OSError:
        return False
    try:
        return not _lock(file)
    finally:
        os.close(file)


def _lock(file: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True
