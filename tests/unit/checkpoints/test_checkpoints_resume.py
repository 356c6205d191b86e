"""Writing that is interrupted or refused, what many tensors cost, and that transformers loads the result."""

from __future__ import annotations

import errno
import os
import shutil
import time

import pytest
import torch
from transformers import AutoModelForCausalLM

from umaf.checkpoints import Writer, begin, draft_of, finish, lay_out, open_checkpoint
from umaf.checkpoints.journal import JOURNAL
from umaf.errors import OutputError

TENSORS = [(str(number), "F32", (1000,)) for number in range(9)]


def written(out, names, *, shard_bytes=9000, resume=False):
    writer = Writer(
        begin(out, resume=resume), lay_out(TENSORS, shard_bytes=shard_bytes), resume=resume, key="k"
    )
    before = set(writer.whole)
    for name in names:
        writer.slot(name).fill_(float(name))
        writer.done(name)
    writer.close()
    return before


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_half_a_line_in_the_journal_loses_one_tensor(tmp_path):
    written(tmp_path / "out", "012")
    journal = draft_of(tmp_path / "out") / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-5])
    assert written(tmp_path / "out", "34", resume=True) == set("01")
    assert written(tmp_path / "out", "", resume=True) == set("0134")


@pytest.mark.parametrize(
    "line", [b"[1]\n", b"junk\n", b'{"tensor": "5"}\n', b'{"tensor": "nobody", "checksum": 1}\n']
)
def test_junk_in_the_journal_is_never_taken_for_a_whole_tensor(tmp_path, line):
    written(tmp_path / "out", "012")
    with (draft_of(tmp_path / "out") / JOURNAL).open("ab") as file:
        file.write(line)
    assert written(tmp_path / "out", "", resume=True) == set("012")


def test_a_draft_with_other_shards_or_a_broken_header_is_begun_anew(tmp_path):
    out = tmp_path / "out"
    written(out, "012")
    assert written(out, "01", resume=True, shard_bytes=10**9) == set()
    assert [path.name for path in draft_of(out).glob("*.safetensors")] == ["model.safetensors"]
    with (draft_of(out) / "model.safetensors").open("r+b") as file:
        file.write(b"\xff" * 8)
    assert written(out, "012345678", resume=True, shard_bytes=10**9) == set()
    assert len(open_checkpoint(finish(draft_of(out), out)).entries) == 9


def test_a_run_killed_after_its_last_tensor_and_before_its_name_goes_on(tmp_path):
    written(tmp_path / "out", "012345678")
    assert written(tmp_path / "out", "", resume=True) == set("012345678")
    place = finish(draft_of(tmp_path / "out"), tmp_path / "out")
    assert not list(place.glob(".*"))


def test_a_draft_has_one_writer(tmp_path):
    draft, layout = begin(tmp_path / "out"), lay_out(TENSORS)
    first = Writer(draft, layout)
    first.slot("1").fill_(1)
    with pytest.raises(OutputError, match="Another run"):
        Writer(draft, layout)
    assert (first.slot("1") == 1).all()
    first.close()


def test_a_refused_resume_leaves_the_draft_as_it_is(tmp_path):
    written(tmp_path / "out", "012")
    before = {path.name: path.read_bytes() for path in draft_of(tmp_path / "out").iterdir()}
    with pytest.raises(OutputError, match="another result"):
        Writer(
            begin(tmp_path / "out", resume=True), lay_out(TENSORS, shard_bytes=9000), resume=True, key="other"
        )
    assert before == {path.name: path.read_bytes() for path in draft_of(tmp_path / "out").iterdir()}


def test_a_file_system_that_promises_no_room_is_asked_how_much_it_has(tmp_path, monkeypatch):
    def unable(*given):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unable)
    written(tmp_path / "out", "012")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(OutputError, match=r"takes 3.... bytes.*0 free"):
        written(tmp_path / "more", "")


def test_a_disk_that_is_full_for_the_journal_is_one_sentence(tmp_path, monkeypatch):
    writer = Writer(begin(tmp_path / "out"), lay_out(TENSORS))
    monkeypatch.setattr(os, "write", lambda file, line: 1)
    with pytest.raises(OutputError, match="No space left"):
        writer.done("1")
    assert writer.whole == set()
    writer.close()


def test_a_mounted_disk_is_no_place_for_a_rename(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda place: True)
    with pytest.raises(OutputError, match="mounted"):
        begin(tmp_path / "out")


def test_memory_stays_flat_over_small_tensors(tmp_path):
    names = [(f"{number:05d}", "BF16", (8192,)) for number in range(6144)]  # 16 KiB each, 96 MiB together
    for out, source in ((tmp_path / "first", None), (tmp_path / "second", tmp_path / "first")):
        writer = Writer(begin(out), lay_out(names, shard_bytes=1 << 30))
        opened = None if source is None else open_checkpoint(source)
        before, most = resident(), 0
        for number, (name, _, _) in enumerate(names):
            writer.slot(name).fill_(1) if opened is None else writer.slot(name).copy_(opened.flat(name))
            writer.done(name)
            if opened is not None:
                opened.release(name)
            if number % 64 == 0:
                most = max(most, resident())
        assert most - before < 32 << 20
        writer.close()
        finish(draft_of(out), out)


def test_fifty_thousand_tensors_are_laid_out_written_and_resumed_quickly(tmp_path):
    names = [(f"layers.{number}.weight", "BF16", (4,)) for number in range(50_000)]
    began = time.process_time()
    layout = lay_out(names, shard_bytes=100_000)
    writer = Writer(begin(tmp_path / "out"), layout, key="k")
    for name, _, _ in names:
        writer.done(name)
    writer._journal.close()
    assert len(Writer(draft_of(tmp_path / "out"), layout, resume=True, key="k").whole) == 50_000
    # About two seconds; anything quadratic takes minutes.
    assert time.process_time() - began < 40


@pytest.mark.parametrize("shard_bytes", [20_000, 10**9])
def test_transformers_loads_what_was_written(pico, tmp_path, shard_bytes):
    source = pico("llama")
    with open_checkpoint(source) as opened:
        entries = opened.entries.values()
        layout = lay_out([(one.name, one.dtype, one.shape) for one in entries], shard_bytes=shard_bytes)
        writer = Writer(begin(tmp_path / "out"), layout)
        for name in opened.entries:
            writer.slot(name).copy_(opened.flat(name))
            writer.done(name)
        writer.close()
    draft = draft_of(tmp_path / "out")
    shutil.copy(source / "config.json", draft)
    nets = [
        AutoModelForCausalLM.from_pretrained(place) for place in (source, finish(draft, tmp_path / "out"))
    ]
    first, second = (net.state_dict() for net in nets)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
