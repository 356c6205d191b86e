"""The scaling that changes nothing: the baseline every other has to beat."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from umaf.errors import ConfigError
from umaf.extraction import Fingerprint
from umaf.scaling.size import Size


def identity(fingerprint: Fingerprint, to: Size, file: Path | None) -> Tensor:
    """Return the vector `[1, 512]` as it is.

    Raises:
        ConfigError: a file was named; there is nothing to load.
    """
    if file is not None:
        raise ConfigError(f'the scaling "identity" reads no file, got {file}; write "identity" alone.')
    return fingerprint.vector.clone()
