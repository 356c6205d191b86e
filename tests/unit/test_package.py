"""`import umaf`: quick, and what it promises is there."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import umaf

CHECK = """
import sys, time
start = time.process_time()
{code}
loaded = {{name.split(".")[0] for name in sys.modules}}
heavy = sorted(loaded & {{"torch", "transformers", "peft", "numpy", "pydantic"}})
print(heavy, time.process_time() - start)
"""


def _run(code):
    done = subprocess.run(
        [sys.executable, "-c", CHECK.format(code=code)], capture_output=True, text=True, check=True
    )
    heavy, seconds = done.stdout.splitlines()[-1].rsplit(" ", 1)
    return heavy, float(seconds)


@pytest.mark.parametrize(
    "code",
    [
        "import umaf; dir(umaf); umaf.UmafError",
        "from umaf import errors, registry, seeds, files",
        "from umaf.cli import main\ntry: main(['--help'])\nexcept SystemExit as end: assert end.code == 0",
    ],
)
def test_nothing_heavy_is_imported(code):
    heavy, seconds = _run(code)
    assert heavy == "[]"
    assert seconds < 1


def test_all_is_short_sorted_and_has_a_home_for_every_name():
    assert umaf.__all__ == sorted(umaf.__all__)
    assert len(umaf.__all__) <= 15
    assert set(umaf.__all__) == set(umaf._HOMES) | {"UmafError", "__version__"}
    assert set(umaf.__all__) <= set(dir(umaf))


@pytest.mark.parametrize("name", umaf.__all__)
def test_every_public_name_can_be_imported(name):
    value = getattr(umaf, name)
    if name in umaf._HOMES:
        module, attribute = umaf._HOMES[name].split(":")
        assert value is getattr(import_module(module), attribute)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = umaf.nothing


@pytest.mark.parametrize("name", umaf.__all__)
def test_every_public_name_is_in_the_reference(name):
    page = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "python.md").read_text()
    home = umaf._HOMES.get(name, "").replace(":", ".")
    # A class may be documented where it is defined, which is not always where it is imported from.
    assert f"`umaf.{name}`" in page or f"::: {home}\n" in page or f".{name}\n" in page
