"""Which kind of file a record is: everything the project writes, by what is in it and not by its name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from umaf.errors import ConfigError

FILES = ("record.json", "run.json", "umaf.json", "expert.json", "summary.json")
"""What is looked for in a folder, besides dated records and fingerprints."""

WORDS = {
    "quickstart": "a quickstart",
    "transfer": "a transfer with what it brought and cost",
    "merged": "a merge with what it brought and cost",
    "evaluate": "an evaluation",
    "measured": "a record of a benchmark",
    "summary": "headline figures of a benchmark",
    "merge": "how a merged folder was made (umaf.json)",
    "adapter": "where an adapter comes from (umaf.json)",
    "diff": "a difference (umaf diff --json)",
    "monitor": "the numbers of a job",
    "expert": "an expert's card",
    "fingerprint": "a fingerprint",
}
"""The kinds of record a report can tell of."""


@dataclass(frozen=True)
class Found:
    """One file, and what it is.

    Attributes:
        kind: a key of `WORDS`, or "unknown".
        path: where it lies.
        data: its content; empty for a file that is read later.
        why: what was found in it, for one of unknown kind.
    """

    kind: str
    path: Path
    data: Mapping[str, Any]
    why: str = ""

    @property
    def name(self) -> str:
        """What it is called on a page: the folder's name, where the file's says nothing of its own.

        Example:
            >>> Found("merge", Path("out/merged/umaf.json"), {}).name
            'merged'
        """
        if self.path.name in (*FILES, "metrics.jsonl", "fingerprint.safetensors"):
            return self.path.resolve().parent.name
        return self.path.stem


def find_records(places: list[Path] | tuple[Path, ...]) -> list[Found]:
    """Read records; of a folder, all that lie in it.

    Args:
        places: files and folders.

    Returns:
        What was found, unknown kinds included, in the order given.

    Raises:
        ConfigError: a place is not there, or a folder holds no record.

    Example:
        >>> find_records([Path("no/such.json")])
        Traceback (most recent call last):
        umaf.errors.ConfigError: The record no/such.json was asked for, but there is no such file; check the path.
    """
    found: list[Found] = []
    for place in places:
        if place.is_dir():
            inside = _inside(place)
            if not inside:
                raise ConfigError(
                    f"The folder {place} was asked for, but there is no record in it (looked for {', '.join(FILES)}, "
                    "other .json files and .safetensors fingerprints); name a folder that umaf wrote."
                )
            found += inside
        elif place.is_file():
            found.append(identify(place))
        else:
            raise ConfigError(f"The record {place} was asked for, but there is no such file; check the path.")
    return found


def _inside(folder: Path) -> list[Found]:
    """Read what is known in a folder; what is not a record there (a model's config) is none of a report's business."""
    names = [folder / name for name in FILES if (folder / name).is_file()]
    others = [path for path in sorted(folder.glob("*.json")) if path not in names]
    prints = sorted(folder.glob("*.safetensors"))
    found = [identify(path) for path in (*names, *others, *prints)]
    return [one for one in found if one.kind != "unknown"]


def identify(path: Path) -> Found:
    """Say what a file is.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "summary.json"
        >>> _ = file.write_text('{"a": {"value": 1, "low": 0, "high": 2, "n": 3, "aim": null}}')
        >>> identify(file).kind
        'summary'
    """
    if path.suffix == ".safetensors":
        return _tensors(path)
    if path.suffix == ".jsonl":
        return Found("monitor", path, {})
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        return Found("unknown", path, {}, f"it is no JSON ({problem})")
    if not isinstance(data, dict):
        return Found("unknown", path, {}, "it holds a list or a single value")
    kind = _kind(data)
    if kind == "unknown" and path.name == "umaf.json" and (path.parent / "adapter_config.json").is_file():
        kind = "adapter"
    why = "" if kind != "unknown" else f"its keys are {', '.join(list(data)[:8]) or 'none'}"
    return Found(kind, path, data, why)


def _kind(data: Mapping[str, Any]) -> str:
    keys = data.keys()
    if {"kind", "config", "numbers", "versions", "machine", "started"} <= keys:
        own = {"quickstart", "transfer", "merged", "evaluate"}
        return str(data["kind"]) if data["kind"] in own else "measured"
    if {"kind", "recipe", "parents", "tensors"} <= keys:
        return "merge"
    if {"target", "provenance"} <= keys:
        return "adapter"
    if {"total", "layers", "kinds", "tensors"} <= keys:
        return "diff"
    if {"name", "base_identity", "modules", "curves"} <= keys:
        return "expert"
    if data.get("kind") == "monitor":
        return "monitor"
    figures = [
        one for one in data.values() if isinstance(one, dict) and {"value", "low", "high"} <= one.keys()
    ]
    return "summary" if data and len(figures) == len(data) else "unknown"


def _tensors(path: Path) -> Found:
    try:
        with safe_open(str(path), "pt") as file:
            about = file.metadata() or {}
    except (OSError, SafetensorError) as problem:
        return Found("unknown", path, {}, f"it cannot be read ({problem})")
    if "card" in about:
        return Found("fingerprint", path, {})
    return Found("unknown", path, {}, "it holds tensors, but no fingerprint's card")
