"""pyproject.toml, constraints.txt and the tables in the code say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import umaf
from umaf.cli.doctor import CORE, EXTRAS
from umaf.registry import GROUPS

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no TOML reader")

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINNED = [(ROOT / name).read_text() for name in ("constraints.txt", "constraints-browser.txt")]
PINS = dict(line.split("==") for text in PINNED for line in text.splitlines() if "==" in line)


def _name(requirement):
    return re.split(r"[\[<>=!~ ]", requirement)[0]


def test_the_version_is_one():
    assert PROJECT["version"] == umaf.__version__


def test_doctor_knows_every_dependency():
    extras = PROJECT["optional-dependencies"]
    assert tuple(map(_name, PROJECT["dependencies"])) == CORE
    assert {name: tuple(map(_name, extras[name])) for name in extras.keys() - {"all", "dev"}} == EXTRAS
    assert set(re.findall(r"[a-z]+", extras["all"][0])) - {"umaf"} == set(EXTRAS)


def test_everything_the_development_environment_needs_is_pinned():
    extras = PROJECT["optional-dependencies"]
    asked = {
        _name(item) for item in (*PROJECT["dependencies"], *extras["dev"], *extras["report"], *extras["data"])
    }
    assert {name.lower().replace("_", "-") for name in asked} - {"umaf"} <= {
        name.lower().replace("_", "-") for name in PINS
    }
    assert PINS["torch"] == "2.13.0"


def test_core_dependencies_are_not_pinned():
    assert not [item for item in PROJECT["dependencies"] if "==" in item or "<" in item]


def test_entry_point_groups_are_read_and_told():
    assert all(group.startswith("umaf.") for group in GROUPS) and len(set(GROUPS)) == len(GROUPS)
    plugins = (ROOT / "docs" / "how-to" / "plugins.md").read_text()
    assert set(re.findall(r"^\| `(umaf\.\w+)`", plugins, re.MULTILINE)) == set(GROUPS)
    code = [path.read_text() for path in (ROOT / "src" / "umaf").rglob("*.py")]
    for group in GROUPS:
        readers = [
            text for text in code if f'"{group}"' in text and re.search(r"\b(Registry|entry_points)\(", text)
        ]
        assert any("class Registry" not in text for text in readers), f"nothing reads {group}"
