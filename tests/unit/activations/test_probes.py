"""Probe files and lists: read, checked, refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from umaf.activations import check_probes, read_probes
from umaf.errors import ProbeError

TEXTS = [f"text number {number}" for number in range(16)]


def test_probes_are_read_from_both_kinds_of_file(tmp_path: Path) -> None:
    plain, lines = tmp_path / "a.txt", tmp_path / "b.jsonl"
    plain.write_bytes(("\r\n".join(TEXTS) + "\r\n\r\n").encode())
    lines.write_text(
        "\n".join(json.dumps({"input" if i % 2 else "text": text}) for i, text in enumerate(TEXTS))
    )
    assert read_probes(plain) == read_probes(lines) == check_probes(TEXTS)


def test_the_hash_names_texts_and_order() -> None:
    assert check_probes(TEXTS).hash != check_probes(TEXTS[::-1]).hash


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ([*TEXTS, " "], "probe 17 is empty"),
        ([*TEXTS, TEXTS[2]], "probe 17 repeats probe 3"),
        (TEXTS[:5], "5 probes were given and at least 16 are needed, because"),
        ([], "0 probes"),
        ([*TEXTS, 3], "probe 17 is a int"),
        ("one text", "list of texts"),
    ],
)
def test_bad_lists_are_refused(texts: list[str], says: str) -> None:
    with pytest.raises(ProbeError, match=says):
        check_probes(texts)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"x", "got a.csv"),
        ("a.txt", b"", "holds no probes"),
        ("a.txt", b"\xff\xfe", "UTF-8"),
        ("a.txt", b"one\n\ntwo", "probe 2 is empty"),
        ("a.jsonl", b"{", "line 1 is not JSON"),
        ("a.jsonl", b'{"words": "x"}', 'no text under "text" or "input"'),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ProbeError, match=says):
        read_probes(tmp_path / name)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="no probe file"):
        read_probes(tmp_path / "none.txt")
