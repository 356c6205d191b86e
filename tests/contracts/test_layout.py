"""The shape of the source: which room imports which, how long things are, what they are called."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "umaf"
# A room imports only from rooms before it. A room that is not there yet is no mistake; one that is not here is.
ROOMS = (
    "errors registry seeds files pulse tensors tasks models checkpoints deltas merging activations extraction scaling "
    "fusion readout adapters generation evaluation training search experts dispatch pipeline index monitor "
    "reports quickstart testing serve web cli"
).split()
FILES = sorted(SOURCE.rglob("*.py"))
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "manager"}


def _name(path):
    return path.relative_to(SOURCE).as_posix()


def _room(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def _imports(tree, package):
    """Yield the dotted names a module imports, relative ones made absolute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (above, node.module) if part)
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def wrong_imports(path):
    """List the rooms a file imports though they come after its own."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = ["umaf", *path.relative_to(SOURCE).parent.parts]
    rooms = {name.split(".")[1] for name in _imports(tree, package) if name.startswith("umaf.")} & set(ROOMS)
    return sorted(room for room in rooms if ROOMS.index(room) > ROOMS.index(_room(path)))


@pytest.fixture(params=FILES, ids=_name)
def file(request):
    return request.param


def test_every_file_is_in_a_known_room(file):
    assert _room(file) in (*ROOMS, "__init__", "__main__")


def test_a_room_imports_only_from_rooms_above(file):
    if _room(file) not in ("__init__", "__main__"):
        assert wrong_imports(file) == []


def test_the_import_test_can_fail(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "SOURCE", tmp_path)
    (tmp_path / "tensors").mkdir()
    path = tmp_path / "tensors" / "x.py"
    path.write_text(
        "def f():\n    from umaf.cli import main\n    from .. import pipeline\n    from umaf import errors\n"
    )
    assert wrong_imports(path) == ["cli", "pipeline"]


def test_no_file_is_long(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 400


def test_no_function_is_long(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert [
        node.name for node in functions if (node.end_lineno or 0) - node.lineno + 1 - _docstring(node) > 60
    ] == []


def _docstring(node):
    """Count a function's docstring lines, which make it no harder to read."""
    first = node.body[0]
    is_text = (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    )
    return (first.end_lineno or 0) - first.lineno + 1 if is_text else 0


def test_no_file_has_a_vague_name(file):
    assert file.stem not in VAGUE and file.parent.name not in VAGUE


def test_nothing_is_asserted_or_star_imported(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    assert not [
        node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
    ]


def test_every_file_says_what_it_is_for(file):
    assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))


FOLDERS = sorted({path.parent for path in FILES} - {SOURCE})


@pytest.mark.parametrize("folder", FOLDERS, ids=_name)
def test_every_room_has_a_short_readme(folder):
    page = folder / "README.md"
    assert page.is_file(), (
        f"{page.relative_to(ROOT)} is missing: what comes in, what goes out, which file to open first"
    )
    assert len(page.read_text(encoding="utf-8").splitlines()) <= 15


@pytest.mark.parametrize("folder", FOLDERS, ids=_name)
def test_every_room_is_a_package(folder):
    assert (folder / "__init__.py").is_file()
