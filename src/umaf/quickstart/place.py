"""The folder a quickstart leaves: whole or not there, and replaced only where it is a quickstart's own."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from umaf.errors import ConfigError, OutputError
from umaf.evaluation.record import read_record
from umaf.files import whole_folder

KIND = "quickstart"


def check_place(out: str | Path) -> None:
    """Stop where something stands in the way that is not an earlier quickstart; asked before any work.

    Raises:
        OutputError: a file, or a folder without a quickstart's record.

    Example:
        >>> check_place("no/such/folder")
    """
    place = Path(out)
    if not os.path.lexists(place):
        return
    try:
        own = not place.is_symlink() and read_record(place / "record.json").kind == KIND
    except ConfigError:
        own = False
    if not own:
        raise OutputError(
            f"The output {out} already exists and is not an earlier quickstart's (it has no record.json of one); name "
            "another folder, or remove it first."
        )


@contextmanager
def own_folder(out: str | Path) -> Iterator[Path]:
    """Write a quickstart's folder whole or not at all; an earlier one stays until the new one is whole.

    Raises:
        OutputError: the place is taken by something else, or cannot be written to.

    Example:
        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp()) / "quickstart"
        >>> with own_folder(place) as draft:
        ...     _ = (draft / "note.txt").write_text("done")
        >>> (place / "note.txt").exists()
        True
    """
    place = Path(out)
    check_place(place)
    if not place.exists():
        with whole_folder(place) as draft:
            yield draft
        return
    tag = secrets.token_hex(4)
    new, old = (place.with_name(f".{place.name}.{tag}.{word}") for word in ("new", "old"))
    with whole_folder(new) as draft:
        yield draft
    try:
        place.rename(old)
        try:
            new.rename(place)
        except BaseException:
            old.rename(place)
            raise
    except OSError as problem:
        raise OutputError(
            f"The output {out} cannot be replaced ({problem.strerror}); name another folder."
        ) from problem
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
