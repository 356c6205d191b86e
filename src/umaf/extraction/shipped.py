"""Open a trained extractor, of either design: the one that ships with umaf, or one of your own."""

from __future__ import annotations

import json
from pathlib import Path

from umaf.errors import FingerprintError
from umaf.extraction.linear import DESIGN, Linear, load_linear
from umaf.extraction.trained import Trained, load_trained

SHIPPED = (
    Path(__file__).resolve().parents[3] / "zoo" / "extractor",  # a checkout
    Path(__file__).resolve().parents[1] / "zoo_extractor",  # an installed wheel
)


def open_trained(folder: str | Path | None = None) -> Linear | Trained:
    """Read a trained extractor from its folder; what ships with umaf when None.

    Raises:
        FingerprintError: none there, or one of another version.

    Example:
        >>> open_trained().version.startswith("trained-linear-")
        True
    """
    place = next((one for one in SHIPPED if one.is_dir()), SHIPPED[0]) if folder is None else Path(folder)
    try:
        about = json.loads((place / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise FingerprintError(
            f"{place} holds no trained extractor; give a folder that `umaf train extractor` wrote."
        ) from None
    return load_linear(place) if about.get("design") == DESIGN else load_trained(place)
