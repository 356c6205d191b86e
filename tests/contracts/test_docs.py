"""What the pages say to type can be typed: every command and option is there, and every import in an example."""

from __future__ import annotations

import ast
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

import umaf
from umaf.cli.app import COMMANDS, load

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page, *kinds):
    return [body for kind, body in BLOCK.findall(page.read_text(encoding="utf-8")) if kind in kinds]


def lines_of(block):
    """Give the commands of a shell block, those over several lines joined, comments and prompts left out."""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and Path(words[0]).name == "umaf" and "..." not in words[:2]:
            yield words[1:]


def unknown_options(words):
    """List what a command line names that the command does not have."""
    if not words or words[0].startswith("-"):
        return []
    if words[0] not in COMMANDS:
        return [words[0]]
    command, rest = load(words[0]), words[1:]
    while hasattr(command, "commands"):
        if not rest or rest[0].startswith("-"):
            break
        if rest[0] not in command.commands:
            return [rest[0]]
        command, rest = command.commands[rest[0]], rest[1:]
    if command.context_settings.get("ignore_unknown_options"):
        return []  # a recipe of the zoo reads its own
    known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {
        "--help",
        "--debug",
    }
    return [
        word
        for word in (word.partition("=")[0] for word in rest)
        if word.startswith("--") and word not in known
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_of_a_page_is_one(page):
    wrong = [
        (words, missing)
        for block in blocks(page, "bash", "sh", "console")
        for words in lines_of(block)
        if (missing := unknown_options(words))
    ]
    assert wrong == []


def test_the_check_can_fail():
    assert unknown_options(["transfer", "--sauce", "x", "--rank", "2"]) == ["--sauce"]
    assert unknown_options(["tranfer"]) == ["tranfer"]
    assert unknown_options(["index", "biuld", "x"]) == ["biuld"]
    assert unknown_options(["index", "build", "x", "--probes=y", "--colour"]) == ["--colour"]
    assert list(lines_of("umaf transfer --a \\\n  --b  # c\nls")) == [["transfer", "--a", "--b"]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_name_that_an_example_takes_from_umaf_is_there(page):
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "umaf":
                module = import_module(node.module or "")
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
            elif (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "umaf"
            ):
                assert node.attr in umaf.__all__ or node.attr in ("experts",), node.attr


def test_every_command_is_in_the_reference():
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"| `umaf {name}" not in page] == []


def test_every_option_of_transfer_is_in_the_reference():
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    options = {name for one in load("transfer").params for name in one.opts if name.startswith("--")}
    assert sorted(name for name in options if f"`{name}" not in page and f"{name} " not in page) == []
