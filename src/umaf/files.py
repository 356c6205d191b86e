"""Files that are either whole or not there, and hashes of what they hold."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from umaf.errors import OutputError


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Write a folder whole or not at all.

    Yields a fresh folder beside `path`, which takes its name when the block ends well. When the block raises, an
    interruption included, everything written is removed, and so are parent folders made on the way.

    Raises:
        OutputError: something is already at `path`, or its parent cannot be written to.

    Example:
        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp()) / "result"
        >>> with whole_folder(place) as draft:
        ...     _ = (draft / "note.txt").write_text("done")
        >>> (place / "note.txt").read_text()
        'done'
    """
    target = Path(path)
    refuse_existing(target)
    made = [parent for parent in target.absolute().parents if not parent.exists()]
    # A name made here, not tempfile.mkdtemp, whose folders only their owner may enter.
    draft = target.absolute().parent / f".{target.name}.{secrets.token_hex(4)}.part"
    try:
        try:
            draft.mkdir(parents=True)
        except OSError as problem:
            raise _unwritable(target, problem) from problem
        yield draft
        refuse_existing(target)
        try:
            draft.rename(target)
        except OSError as problem:
            raise _unwritable(target, problem) from problem
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        with suppress(OSError):
            for parent in made:
                parent.rmdir()
        raise


def refuse_existing(path: str | Path) -> None:
    """Stop where something is in the way of an output; long work asks before it begins.

    Raises:
        OutputError: something is at `path`.

    Example:
        >>> refuse_existing("no/such/folder")
    """
    # lexists, because a dangling link is in the way too.
    if os.path.lexists(path):
        raise OutputError(f"The output {path} already exists; name another folder, or remove it first.")


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file in UTF-8, replacing one that is there in a single step.

    Raises:
        OutputError: the folder cannot be made or written to.
    """
    target = Path(path)
    draft = target.absolute().parent / f".{target.name}.{secrets.token_hex(4)}.part"
    try:
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text, encoding="utf-8", newline="\n")
        os.replace(draft, target)
    except OSError as problem:
        raise _unwritable(target, problem) from problem
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    return target


def write_json(path: str | Path, data: object) -> Path:
    """Write JSON that any reader accepts, replacing a file that is there in a single step.

    Raises:
        OutputError: the data holds NaN, infinity or an object JSON has no form for, or cannot be written there.
    """
    try:
        text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as problem:
        raise OutputError(
            f"{path} was to be written as JSON, but its content has no JSON form ({problem}); "
            "use null for a number that is missing."
        ) from problem
    return write_text(path, text + "\n")


def sha256_file(path: str | Path) -> str:
    """Hash a file's bytes, read in pieces of 1 MiB; 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def hash_texts(texts: Iterable[str]) -> str:
    """Hash texts in their order; 64 hexadecimal digits.

    Each text is preceded by its length, so that moving a boundary between two texts changes the hash.

    Example:
        >>> hash_texts(["ab", "c"]) == hash_texts(["a", "bc"])
        False
    """
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.hexdigest()


def _unwritable(target: Path, problem: OSError) -> OutputError:
    reason = problem.strerror or str(problem)
    return OutputError(f"The output {target} cannot be written ({reason}); name a place you may write to.")
