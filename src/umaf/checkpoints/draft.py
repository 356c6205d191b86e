"""A result grows in a hidden folder beside its place, and takes the place when it is whole."""

from __future__ import annotations

import fcntl
import shutil
from contextlib import suppress
from pathlib import Path

from umaf.errors import OutputError

JOURNAL = ".journal.jsonl"


def draft_of(out: str | Path) -> Path:
    """Name the hidden folder in which a result grows; the same for every try.

    Example:
        >>> draft_of("models/merged").name
        '.merged.part'
    """
    place = Path(out).expanduser().absolute()
    return place.parent / f".{place.name}.part"


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
    out = Path(out).expanduser()
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise OutputError(f"{out} is not an empty folder; give a new one, or empty it.")
    draft = draft_of(out)
    if resume and not draft.is_dir():
        raise OutputError(f"There is nothing to resume for {out}; run it without --resume.")
    if draft.is_dir():
        _check_alone(draft, out)
    try:
        if draft.exists() and not resume:
            shutil.rmtree(draft)
        draft.mkdir(parents=True, exist_ok=resume)
    except OSError as problem:
        raise OutputError(f"{out} cannot be written ({problem.strerror}); give another place.") from problem
    return draft


def _check_alone(draft: Path, out: Path) -> None:
    with suppress(FileNotFoundError), (draft / JOURNAL).open("ab") as journal:
        try:
            fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            raise OutputError(
                f"Another run is writing {out}; wait for it, or give another place."
            ) from problem


def finish(draft: Path, out: str | Path) -> Path:
    """Give a whole draft its name.

    Raises:
        OutputError: something came to be at `out` meanwhile; the draft is kept.
    """
    out = Path(out).expanduser().absolute()
    try:
        if out.is_dir() and not out.is_symlink():
            out.rmdir()  # only ever an empty one: any other is refused by the system
        draft.rename(out)
    except OSError as problem:
        raise OutputError(
            f"{out} came to be while it was written ({problem.strerror}); the result is whole in {draft}."
        ) from problem
    return out
