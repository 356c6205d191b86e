"""A folder that a job wrote, as one zip file."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from umaf.serve.faults import Fault

PIECE = 1 << 18


def zipped(folder: Path, *, most: int) -> Iterator[bytes]:
    """Pack a folder's plain files.

    Args:
        folder: of an adapter or a merged model; links in it are left out.
        most: bytes that it may have.

    Returns:
        The zip in pieces.

    Raises:
        Fault: there is nothing, or it is larger.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    # A link to a folder inside is followed by rglob on old Pythons.
    files = [path for path in files if path.resolve().is_relative_to(folder.resolve())]
    if not files:
        raise Fault(404, f"The folder {folder.name} is not there; the job may not have ended well.")
    size = sum(os.path.getsize(path) for path in files)
    if size > most:
        raise Fault(
            413,
            f"The folder {folder.name} has {size:,} bytes, and {most:,} are given at most; copy it from the disk.",
        )
    packed = tempfile.TemporaryFile()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for path in files:
            archive.write(path, f"{folder.name}/{path.relative_to(folder)}")
    packed.seek(0)
    return _pieces(packed)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(PIECE):
            yield piece
