"""A result grows in a hidden folder beside its place, and takes the place when it is whole."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from umaf.checkpoints.journal import JOURNAL, is_held
from umaf.errors import OutputError


def draft_of(out: str | Path) -> Path:
    """Name the hidden folder in which a result grows; the same for every try.

    Example:
        >>> draft_of("models/merged").name
        '.merged.part'
    """
    place = Path(out).expanduser().absolute()
    return place.parent / f".{place.name}.part"


def check_place(out: str | Path) -> Path:
    """Refuse a place where no result can be put.

    Args:
        out: where the result will be; nothing there yet, or an empty folder.

    Returns:
        The place, with "~" resolved.

    Raises:
        OutputError: something is there, or a disk is mounted there.

    Example:
        >>> check_place("models/merged").name
        'merged'
    """
    out = Path(out).expanduser()
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise OutputError(f"{out} is not an empty folder; give a new one, or empty it.")
    if os.path.ismount(out):
        raise OutputError(f"{out} is where a disk is mounted; name a new folder in it.")
    return out


def begin(out: str | Path, *, resume: bool = False) -> Path:
    """Make the draft of a result, or find the one that an interrupted try left.

    Args:
        out: where the result will be; nothing there yet, or an empty folder.
        resume: go on with the draft that is there.

    Returns:
        The draft.

    Raises:
        OutputError: something is at `out`, somebody else writes there, there is no draft to go on with, or the
            folder cannot be made.
    """
    out = check_place(out)
    draft = draft_of(out)
    if resume and not draft.is_dir():
        raise OutputError(f"There is nothing to resume for {out}; run it without --resume.")
    if is_held(draft):
        raise OutputError(f"Another run is writing {out}; wait for it, or give another place.")
    try:
        if draft.exists() and not resume:
            shutil.rmtree(draft)
        draft.mkdir(parents=True, exist_ok=resume)
    except OSError as problem:
        raise OutputError(f"{out} cannot be written ({problem.strerror}); give another place.") from problem
    return draft


def finish(draft: Path, out: str | Path) -> Path:
    """Give a whole draft its name, once the disk holds it and without its journal.

    Raises:
        OutputError: something came to be at `out` meanwhile; the draft is kept.
    """
    out = Path(out).expanduser().absolute()
    for path in (*draft.rglob("*"), draft):
        _flush(path)
    try:
        (draft / JOURNAL).unlink(missing_ok=True)
        if out.is_dir() and not out.is_symlink():
            out.rmdir()  # only ever an empty one: any other is refused by the system
        draft.rename(out)
    except OSError as problem:
        raise OutputError(
            f"{out} came to be while it was written ({problem.strerror}); the result is whole in {draft}."
        ) from problem
    _flush(out.parent)
    return out


def _flush(path: Path) -> None:
    """Have the disk keep a file or a folder's list before the result gets its name, so that no power cut is between."""
    with suppress(OSError):  # not every system flushes folders
        opened = os.open(path, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
