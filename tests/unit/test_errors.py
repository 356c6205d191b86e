"""The tree of errors, and the documentation of each of its classes."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from umaf import errors
from umaf.errors import UmafError, did_you_mean

ROOT = Path(__file__).resolve().parents[2]
TREE = {
    "ModelError": ValueError,
    "ProbeError": ValueError,
    "TaskError": LookupError,
    "AdapterError": ValueError,
    "FingerprintError": ValueError,
    "ExpertError": ValueError,
    "StoreError": ValueError,
    "CheckpointError": ValueError,
    "OutputError": OSError,
    "NumericalError": ArithmeticError,
    "ConfigError": ValueError,
    "RegistryError": LookupError,
}


def test_the_tree_is_complete():
    found = {
        name for name, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == "umaf.errors"
    }
    assert found == {"UmafError", *TREE}


@pytest.mark.parametrize(("name", "builtin"), TREE.items())
def test_each_error_is_umafs_and_a_builtin_and_shows_its_sentence(name, builtin):
    kind = getattr(errors, name)
    assert issubclass(kind, UmafError) and issubclass(kind, builtin)
    assert str(kind("one sentence.")) == "one sentence."


@pytest.mark.parametrize("name", TREE)
def test_each_error_has_a_row_in_the_reference(name):
    page = (ROOT / "docs" / "reference" / "errors.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith(f"| `{name}`")]
    assert rows, f"docs/reference/errors.md has no row for {name}"
    assert all(
        len(row.strip("|").split("|")) == 4 and all(cell.strip() for cell in row.strip("|").split("|"))
        for row in rows
    )


def test_a_suggestion_ignores_case_and_is_silent_when_nothing_is_near():
    assert did_you_mean("Cosin", ["cosine", "kl"]) == ' Did you mean "cosine"?'
    assert did_you_mean("zzz", ["cosine", "kl"]) == ""
    assert did_you_mean("kl", []) == ""
