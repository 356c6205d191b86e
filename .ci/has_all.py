"""Exit 0 when this Python has umaf itself, from this checkout, and every pinned package at its version."""

from __future__ import annotations

import json
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PINNED = ("constraints.txt", "constraints-browser.txt")


def missing() -> list[str]:
    """List what is not installed as the constraints say."""
    lines = [line for name in PINNED for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    found = {}
    for name in [*pins, "umaf"]:
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue
    wrong = [
        f"{name}=={pin}"
        for name, pin in pins.items()
        # torch's builds differ in a local suffix: 2.13.0+cpu is 2.13.0.
        if name not in found or found[name].version.split("+")[0] != pin
    ]
    origin = json.loads((found["umaf"].read_text("direct_url.json") or "{}") if "umaf" in found else "{}")
    if origin.get("url") != ROOT.as_uri():
        wrong.append("umaf (this checkout, editable)")
    return wrong


if __name__ == "__main__":
    wrong = missing()
    if wrong:
        print("To be installed:", ", ".join(wrong[:8]) + (", ..." if len(wrong) > 8 else ""))
    sys.exit(bool(wrong))
