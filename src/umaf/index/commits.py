"""Taking turns to write, and what a failed write means."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from umaf.errors import StoreError


@contextmanager
def turn(place: str, *, make: bool = False) -> Iterator[None]:
    """Wait for this process's turn to write; an address elsewhere has no lock, and its commits race."""
    if "://" in place:
        yield
        return
    from filelock import FileLock

    logging.getLogger("filelock").setLevel(logging.WARNING)
    folder = Path(place)
    try:
        if make:
            folder.mkdir(parents=True, exist_ok=True)
        with FileLock(str(folder / ".lock")):
            yield
    except PermissionError as problem:
        raise StoreError(
            f"The store {place} cannot be written ({problem.strerror}); name a place you may write to."
        ) from problem


def lost_a_race(problem: Exception) -> bool:
    """Say whether a commit failed because another came first, so that it can be tried again."""
    text = str(problem).lower()
    return any(word in text for word in ("conflict", "concurrent", "retry", "too many"))


def said(problem: Exception) -> str:
    """Give the first line of what a library says, without the places in its own source."""
    first = next(iter(str(problem).strip().splitlines()), type(problem).__name__)
    return first.split(", /")[0].strip().rstrip(".")[:200]
