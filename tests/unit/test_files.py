"""Files are whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import stat

import pytest

from umaf.errors import OutputError
from umaf.files import hash_texts, sha256_file, whole_folder, write_json, write_text


def _everything(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_folder_appears_whole(tmp_path):
    with whole_folder(tmp_path / "a" / "b") as draft:
        (draft / "x").write_text("1")
        assert not (tmp_path / "a" / "b").exists()
    assert _everything(tmp_path) == ["a", "a/b", "a/b/x"]


def test_a_folder_has_ordinary_permissions(tmp_path):
    with whole_folder(tmp_path / "made"):
        pass
    (tmp_path / "plain").mkdir()
    assert stat.S_IMODE(os.stat(tmp_path / "made").st_mode) == stat.S_IMODE(
        os.stat(tmp_path / "plain").st_mode
    )


@pytest.mark.parametrize("problem", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_stays_after_an_exception(tmp_path, problem):
    with pytest.raises(problem), whole_folder(tmp_path / "a" / "b") as draft:
        (draft / "x").write_text("1")
        raise problem
    assert _everything(tmp_path) == []


def test_a_parent_somebody_else_uses_stays(tmp_path):
    with pytest.raises(ValueError), whole_folder(tmp_path / "a" / "b"):
        (tmp_path / "a" / "theirs").write_text("1")
        raise ValueError
    assert _everything(tmp_path) == ["a", "a/theirs"]


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_what_is_there_is_refused_and_kept(tmp_path, kind):
    place = tmp_path / "taken"
    {"folder": place.mkdir, "file": place.touch, "dangling link": lambda: place.symlink_to("nowhere")}[kind]()
    with pytest.raises(OutputError, match=r"taken already exists; name another"), whole_folder(place):
        pytest.fail("the block must not run")
    assert os.path.lexists(place)


def test_a_folder_made_meanwhile_is_not_overwritten(tmp_path):
    with pytest.raises(OutputError, match="already exists"), whole_folder(tmp_path / "a"):
        (tmp_path / "a").mkdir()
    assert _everything(tmp_path) == ["a"]


def test_a_parent_that_is_a_file_is_an_output_error(tmp_path):
    (tmp_path / "file").touch()
    for write in (lambda path: write_text(path, "x"), lambda path: whole_folder(path).__enter__()):
        with pytest.raises(OutputError, match="cannot be written"):
            write(tmp_path / "file" / "a")


def test_json_replaces_in_one_step(tmp_path):
    for value in ({"a": 1}, {"é": [1.5, None]}):
        write_json(tmp_path / "deep" / "a.json", value)
        assert json.loads((tmp_path / "deep" / "a.json").read_text(encoding="utf-8")) == value
    assert _everything(tmp_path) == ["deep", "deep/a.json"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object()])
def test_what_json_cannot_hold_is_refused_before_writing(tmp_path, value):
    with pytest.raises(OutputError, match="no JSON form"):
        write_json(tmp_path / "a.json", {"x": value})
    assert _everything(tmp_path) == []


def test_hashes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 1_000_000)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"abc" * 1_000_000).hexdigest()
    assert len(hash_texts([])) == 64
    assert (
        len(
            {hash_texts(texts) for texts in (["ab", "c"], ["a", "bc"], ["abc"], ["c", "ab"], ["ab", "c", ""])}
        )
        == 5
    )
