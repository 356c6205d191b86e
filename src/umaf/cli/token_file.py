"""The token that a server asks for: from a file, or from the environment."""

from __future__ import annotations

import os
from pathlib import Path

from umaf.errors import ConfigError


def read_token(file: Path | None, variable: str) -> str | None:
    """Read a token from a file; without one from a variable of the environment; None where neither is there.

    Raises:
        ConfigError: the file cannot be read.
    """
    if file is None:
        return os.environ.get(variable) or None
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigError(
            f"The token file {file} cannot be read; name a text file with the token."
        ) from problem
