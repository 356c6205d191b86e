"""Writing checkpoints: in place, whole or not at all, and gone on with after a kill."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from umaf.checkpoints import Slots, Writer, begin, draft_of, finish, lay_out, open_checkpoint
from umaf.checkpoints.journal import JOURNAL
from umaf.errors import CheckpointError, OutputError

TENSORS = [
    ("a", "BF16", (3, 5)),
    ("b", "F32", (7,)),
    ("c", "BOOL", (3,)),
    ("d", "F32", ()),
    ("e", "F16", (0, 2)),
]
VALUES = {
    "a": torch.arange(15).to(torch.bfloat16),
    "b": torch.arange(7.0),
    "c": torch.tensor([True, False, True]),
    "d": torch.tensor([5.0]),
    "e": torch.empty(0, dtype=torch.float16),
}


def write(out, names="abcde", *, shard_bytes=40, resume=False, key="k"):
    draft = begin(out, resume=resume)
    writer = Writer(draft, lay_out(TENSORS, shard_bytes=shard_bytes), resume=resume, key=key)
    for name in names:
        if name not in writer.whole:
            writer.slot(name).copy_(VALUES[name])
            writer.done(name)
    return draft, writer


@pytest.mark.parametrize("shard_bytes", [1, 40, 10**9])
def test_what_is_written_is_read_by_the_library(tmp_path, shard_bytes):
    draft, writer = write(tmp_path / "out", shard_bytes=shard_bytes)
    sums = writer.close()
    finish(draft, tmp_path / "out")
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert files == sorted(sums)
    assert not (tmp_path / "out" / JOURNAL).exists()
    for file in files:
        content = (tmp_path / "out" / file).read_bytes()
        assert hashlib.sha256(content).hexdigest() == sums[file]
        with safe_open(tmp_path / "out" / file, framework="pt") as opened:
            assert opened.metadata() == {"format": "pt"}
        for name, tensor in load_file(tmp_path / "out" / file).items():
            assert torch.equal(tensor.flatten(), VALUES[name])
    opened = open_checkpoint(tmp_path / "out")
    assert {name: entry.shape for name, entry in opened.entries.items()} == {
        name: shape for name, _, shape in TENSORS
    }


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.tuples(st.sampled_from(["F32", "BF16", "U8"]), st.integers(0, 20)), min_size=1, max_size=9),
    st.integers(1, 90),
)
def test_places_never_overlap_and_fit_their_width(kinds, shard_bytes):
    layout = lay_out(
        [(str(n), dtype, (size,)) for n, (dtype, size) in enumerate(kinds)], shard_bytes=shard_bytes
    )
    assert list(layout.slots) == [str(n) for n in range(len(kinds))]
    for shard in layout.shards:
        places = sorted((slot.start, slot.size) for slot in layout.slots.values() if slot.file == shard.name)
        end = len(shard.header)
        for start, size in places:
            assert start == end
            end += size
        assert end == shard.size
    for slot in layout.slots.values():
        assert slot.start % {"F32": 4, "BF16": 2, "U8": 1}[slot.dtype] == 0


def test_a_tensor_named_twice_or_none_at_all_is_refused():
    with pytest.raises(CheckpointError, match="twice"):
        lay_out([("a", "F32", (1,)), ("a", "F32", (1,))])
    with pytest.raises(CheckpointError, match="no tensors"):
        lay_out([])


def test_workers_write_side_by_side(tmp_path):
    tensors = [(str(n), "F32", (1000,)) for n in range(40)]
    draft = begin(tmp_path / "out")
    writer = Writer(draft, lay_out(tensors, shard_bytes=30_000))

    def fill(name):
        writer.slot(name).fill_(float(name))
        writer.done(name)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(fill, [name for name, _, _ in tensors]))
    writer.close()
    opened = open_checkpoint(finish(draft, tmp_path / "out"))
    assert all((opened.read(name) == float(name)).all() for name, _, _ in tensors)


def test_other_processes_write_to_the_same_places(tmp_path):
    draft = begin(tmp_path / "out")
    layout = lay_out(TENSORS)
    writer = Writer(draft, layout)
    Slots(draft, layout).slot("b").fill_(3)
    assert writer.slot("b").tolist() == [3] * 7
    writer.close()


def test_an_output_that_holds_something_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    assert begin(tmp_path / "out") == draft_of(tmp_path / "out")
    (tmp_path / "out" / "x").write_text("mine")
    with pytest.raises(OutputError, match="not an empty folder"):
        begin(tmp_path / "out")
    with pytest.raises(OutputError, match="not an empty folder"):
        begin(tmp_path / "out" / "x")


def test_an_unfinished_writer_leaves_nothing_that_looks_whole(tmp_path):
    _, writer = write(tmp_path / "out", "ab")
    assert writer.close() == {}
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == [".out.part"]


def test_resume_redoes_only_what_is_not_whole(tmp_path):
    write(tmp_path / "out", "ab")[1].close()
    draft, writer = write(tmp_path / "out", "", resume=True)
    assert writer.whole == {"a", "b"}
    writer.close()
    draft, writer = write(tmp_path / "out", resume=True)
    assert writer.close()
    assert open_checkpoint(finish(draft, tmp_path / "out")).read("c").tolist() == [True, False, True]


def test_resume_redoes_a_tensor_whose_bytes_changed(tmp_path):
    draft, writer = write(tmp_path / "out", "ab", shard_bytes=10**9)
    place = writer.layout.slots["b"]
    writer.close()
    with (draft / place.file).open("r+b") as file:
        file.seek(place.start + 5)
        file.write(b"\xff")
    _, writer = write(tmp_path / "out", "", resume=True, shard_bytes=10**9)
    assert writer.whole == {"a"}
    writer.close()


def test_another_result_is_not_gone_on_with(tmp_path):
    write(tmp_path / "out", "ab")[1].close()
    with pytest.raises(OutputError, match="another result"):
        write(tmp_path / "out", resume=True, key="other")
    with pytest.raises(OutputError, match="nothing to resume"):
        begin(tmp_path / "never", resume=True)


def test_two_runs_do_not_write_to_one_place(tmp_path):
    _, first = write(tmp_path / "out", "a")
    with pytest.raises(OutputError, match="Another run"):
        begin(tmp_path / "out")
    first.close()
    begin(tmp_path / "out")


def test_a_full_disk_is_found_before_anything_is_computed(tmp_path, monkeypatch):
    def full(*given):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    draft = begin(tmp_path / "out")
    with pytest.raises(OutputError, match="No space left"):
        Writer(draft, lay_out(TENSORS))
    assert list(draft.iterdir()) == []


def test_a_result_that_came_to_be_meanwhile_is_not_overwritten(tmp_path):
    draft, writer = write(tmp_path / "out")
    writer.close()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").write_text("mine")
    with pytest.raises(OutputError, match="whole in"):
        finish(draft, tmp_path / "out")
    assert (tmp_path / "out" / "x").read_text() == "mine"


KILLED = """
import os, signal, sys
from umaf.checkpoints import Writer, begin, lay_out
writer = Writer(begin(sys.argv[1]), lay_out([(str(n), "F32", (1000,)) for n in range(9)], shard_bytes=9000), key="k")
for name in "0123":
    writer.slot(name).fill_(float(name))
    writer.done(name)
writer.slot("4").fill_(1.0)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_leaves_a_draft_that_can_be_gone_on_with(tmp_path):
    out = tmp_path / "out"
    ended = subprocess.run([sys.executable, "-c", KILLED, out], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not out.exists()
    layout = lay_out([(str(n), "F32", (1000,)) for n in range(9)], shard_bytes=9000)
    writer = Writer(begin(out, resume=True), layout, resume=True, key="k")
    assert writer.whole == set("0123")
    assert writer.slot("3").eq(3).all()
    writer.close()


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 0, 3, 2), (3, 2, 1, 0), (0, 1)])
def test_checksums_of_what_is_being_written_are_those_of_the_files(tmp_path, order):
    """In any order of its pieces, and with pieces that nobody told of."""
    draft = begin(tmp_path / "out")
    writer = Writer(draft, lay_out([("a", "F32", (1000,)), ("b", "F32", (1000,))]))
    told = torch.arange(1000.0)
    for name in "ab":
        start = writer.layout.slots[name].start
        writer.slot(name).copy_(told)
        for piece in order:
            data = told[250 * piece : 250 * (piece + 1)].view(torch.uint8).numpy().data
            writer.heed(name, start + 1000 * piece, data)
        writer.done(name)
    noted = [json.loads(line) for line in (draft / JOURNAL).read_text().splitlines()][1:]
    assert {row["tensor"]: row["checksum"] for row in noted} == {name: writer.checksum(name) for name in "ab"}
    sums = writer.close()
    assert sums == {
        "model.safetensors": hashlib.sha256((draft / "model.safetensors").read_bytes()).hexdigest()
    }
