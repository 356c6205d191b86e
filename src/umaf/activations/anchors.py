"""The anchor texts: 256 fixed short texts, the same for every model and every user.

They are the axes of the space in which models are compared, so a change of one character makes a
different space. `ANCHORS_HASH` names the version, and every fingerprint's card carries it.
"""

from __future__ import annotations

from importlib import resources

from umaf.files import hash_texts

ANCHORS: tuple[str, ...] = tuple(
    resources.files("umaf.activations").joinpath("anchors.txt").read_text(encoding="ascii").splitlines()
)

ANCHORS_HASH: str = hash_texts(ANCHORS)
