"""Probes: the user's texts, without labels, on which a capability shows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from umaf.errors import ProbeError
from umaf.files import hash_texts

MINIMUM = 16


@dataclass(frozen=True)
class Probes:
    """Checked probe texts.

    Attributes:
        texts: the texts, in the user's order.
        hash: 64 hexadecimal digits that name these texts in this order.
    """

    texts: tuple[str, ...]
    hash: str

    def __len__(self) -> int:
        return len(self.texts)


def check_probes(texts: Sequence[str], minimum: int = MINIMUM) -> Probes:
    """Make probes of texts, or say what is wrong with them.

    Args:
        texts: one text per probe.
        minimum: how many are needed. A fingerprint averages over its probes, and the error of an
            average falls with the square root of their number: with 16 it is a quarter of the
            spread of a single text.

    Returns:
        The probes.

    Raises:
        ProbeError: an empty or repeated text, something that is not text, or too few texts.

    Example:
        >>> len(check_probes([f"text {number}" for number in range(16)]))
        16
    """
    if isinstance(texts, str):
        raise ProbeError(
            "probes must be a list of texts, got one text; put it in a list, or read a file with read_probes."
        )
    seen: dict[str, int] = {}
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise ProbeError(f"probe {number} is a {type(text).__name__}, not text; convert it.")
        if not text.strip():
            raise ProbeError(f"probe {number} is empty; remove it or fill it in.")
        if text in seen:
            raise ProbeError(
                f"probe {number} repeats probe {seen[text]} ({_short(text)}), and a repeated text "
                f"would count twice; remove one of them."
            )
        seen[text] = number
    if len(seen) < minimum:
        raise ProbeError(
            f"{len(seen)} probes were given and at least {minimum} are needed, because a "
            f"fingerprint averages over its probes and fewer leave mostly the noise of single "
            f"texts; add {minimum - len(seen)} more."
        )
    return Probes(tuple(seen), hash_texts(tuple(seen)))


def read_probes(path: str | Path, minimum: int = MINIMUM) -> Probes:
    """Read probes from a file.

    Args:
        path: `.txt` with one text per line (blank lines at the end are left out), or `.jsonl` with
            one object per line whose text stands under "text" or "input".
        minimum: as in `check_probes`.

    Returns:
        The probes.

    Raises:
        ProbeError: no such file, another kind of file, a line without text, or anything that
            `check_probes` refuses.

    Example:
        >>> read_probes("nowhere.txt")
        Traceback (most recent call last):
        ...
        umaf.errors.ProbeError: no probe file at nowhere.txt; give a .txt or .jsonl file.
    """
    file = Path(path)
    if not file.is_file():
        raise ProbeError(f"no probe file at {path}; give a .txt or .jsonl file.")
    if file.suffix not in (".txt", ".jsonl"):
        raise ProbeError(
            f"probes are read from .txt (one text per line) or .jsonl files, got {file.name}; "
            f"save them as one of these."
        )
    try:
        lines = file.read_text(encoding="utf-8").rstrip().split("\n")
    except UnicodeDecodeError:
        raise ProbeError(f"{path} is not UTF-8 text; save it as UTF-8.") from None
    lines = [line.removesuffix("\r") for line in lines]
    if lines == [""]:
        raise ProbeError(f"{path} holds no probes; write one text per line, at least {minimum}.")
    if file.suffix == ".txt":
        return check_probes(lines, minimum)
    texts = [_text_of(line, f"{path}, line {at}") for at, line in enumerate(lines, start=1)]
    return check_probes(texts, minimum)


def _text_of(line: str, where: str) -> str:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        raise ProbeError(f"{where} is not JSON; write one object per line.") from None
    if isinstance(record, dict):
        for key in ("text", "input"):
            if isinstance(record.get(key), str):
                return record[key]
    raise ProbeError(f'{where} has no text under "text" or "input"; add one of these keys.')


def _short(text: str) -> str:
    return json.dumps(text if len(text) <= 40 else text[:37] + "...")
