"""Opening checkpoints: what is read, and what is said of broken ones."""

from __future__ import annotations

import json
import os
import struct
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from umaf.checkpoints import Entry, identity, open_checkpoint, reads
from umaf.errors import CheckpointError

TENSORS = {
    "a.weight": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "b.weight": torch.randn(5, 2).to(torch.bfloat16),
    "c.count": torch.tensor(7),
    "d.empty": torch.empty(0, 3),
    "e.mask": torch.tensor([True, False, True]),
    "f.half": torch.randn(2, 2).half(),
    "g.eight": torch.randn(4).to(torch.float8_e4m3fn),
}


def sharded(folder, shards):
    folder.mkdir()
    index = {}
    for number, tensors in enumerate(shards):
        name = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        save_file(tensors, folder / name)
        index |= dict.fromkeys(tensors, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return folder


@pytest.fixture
def two(tmp_path):
    return sharded(tmp_path / "two", [{"a": torch.ones(2)}, {"b": torch.zeros(3), "c": torch.ones(1)}])


def test_every_format_and_shape_is_read_as_the_library_reads_it(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    with open_checkpoint(tmp_path) as opened:
        assert set(opened.entries) == set(TENSORS)
        for name, tensor in load_file(tmp_path / "model.safetensors").items():
            found = opened.read(name)
            assert found.dtype == tensor.dtype and found.shape == tensor.shape
            assert torch.equal(found.float(), tensor.float())
            assert opened.flat(name).shape == (tensor.numel(),)


@pytest.mark.parametrize("most", [300, 0])
def test_a_range_is_read_into_memory_of_the_caller(tmp_path, monkeypatch, most):
    # Where too many files are open, out of the memory map.
    monkeypatch.setattr(reads, "MOST", most)
    values = torch.randn(9).bfloat16()
    save_file({"a": torch.ones(3), "b": values}, tmp_path / "model.safetensors")
    opened = open_checkpoint(tmp_path)
    for dtype in (torch.bfloat16, torch.float32):
        out = torch.full((4,), 5.0, dtype=dtype)
        opened.fill("b", 2, out[:3])
        assert torch.equal(out, torch.cat([values[2:5].to(dtype), torch.tensor([5.0], dtype=dtype)]))
    opened.close()
    opened.fill("b", 0, out)
    assert torch.equal(out, values[:4].float())


def test_a_range_of_a_file_that_was_cut_is_one_sentence(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(1000)}, path)
    opened = open_checkpoint(tmp_path)
    os.truncate(path, 2000)
    with pytest.raises(CheckpointError, match=r"model.safetensors was cut short .* within a since"):
        opened.fill("a", 0, torch.empty(1000))


def test_a_lone_file_and_a_folder_with_one_are_opened(tmp_path):
    file = tmp_path / "weights.safetensors"
    save_file({"a": torch.ones(2)}, file)
    for place in (file, tmp_path):
        opened = open_checkpoint(place)
        assert opened.config is None
        assert opened.entries["a"] == Entry("a", "F32", (2,), file, opened.entries["a"].start, 8)


def test_shards_are_read_together(two):
    opened = open_checkpoint(two)
    assert list(opened.entries) == ["a", "b", "c"] or set(opened.entries) == {"a", "b", "c"}
    assert opened.read("c").item() == 1
    assert len(opened.files) == 2


def test_a_tensor_outlives_release_and_close(two):
    opened = open_checkpoint(two)
    tensor = opened.flat("b")
    opened.release()
    opened.close()
    assert not tensor.any()


def test_released_pages_leave_memory(tmp_path):
    save_file({"a": torch.ones(16_000_000)}, tmp_path / "model.safetensors")
    opened = open_checkpoint(tmp_path)

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    opened.flat("a").sum()
    full = resident()
    opened.release("a")
    assert full - resident() > 50_000_000


def truncated(folder):
    path = next(folder.glob("model-00002*"))
    path.write_bytes(path.read_bytes()[:-3])


def longer(folder):
    path = next(folder.glob("model-00002*"))
    path.write_bytes(path.read_bytes() + b"xx")


def missing(folder):
    next(folder.glob("model-00002*")).unlink()


def junk(folder):
    next(folder.glob("model-00002*")).write_bytes(b"not a header at all, only text")


def empty(folder):
    next(folder.glob("model-00002*")).write_bytes(b"")


def stale(folder):
    save_file({"a": torch.ones(2)}, folder / "model.safetensors")


def unnamed(folder):
    save_file({"a": torch.ones(2), "z": torch.ones(1)}, folder / "model-00001-of-00002.safetensors")


def absent(folder):
    path = folder / "model.safetensors.index.json"
    found = json.loads(path.read_text())
    found["weight_map"]["y"] = "model-00001-of-00002.safetensors"
    path.write_text(json.dumps(found))


def twice(folder):
    save_file({"a": torch.ones(2), "b": torch.ones(3)}, folder / "model-00001-of-00002.safetensors")


def not_json(folder):
    (folder / "model.safetensors.index.json").write_text("{")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (truncated, "00002.*cut short"),
        (longer, "00002.*more than its header"),
        (missing, "00002.*missing"),
        (junk, "00002.*no safetensors file"),
        (empty, "00002.*no safetensors file"),
        (stale, "one of which is older|of which one is older"),
        (unnamed, "holds z.*does not name it"),
        (absent, "puts y into"),
        (twice, "holds b.*puts it into"),
        (not_json, "no index of shards"),
    ],
)
def test_what_is_wrong_with_shards_is_one_sentence(two, spoil, said):
    spoil(two)
    with pytest.raises(CheckpointError, match=said) as problem:
        open_checkpoint(two)
    assert "\n" not in str(problem.value)


def header(path, content, data=b""):
    text = json.dumps(content).encode() if not isinstance(content, bytes) else content
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize(
    ("content", "data", "said"),
    [
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"0" * 4, "a has 4 bytes"),
        ({"a": {"dtype": "F33", "shape": [1], "data_offsets": [0, 4]}}, b"0" * 4, "F33"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"0" * 8, "gap"),
        ({"a": {"dtype": "F32", "shape": [1]}}, b"0" * 4, "where a lies"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}}, b"", "a has"),
        (b'{"a": 1, "a": 2}', b"", "a twice"),
        (b'{"a": ', b"", "no JSON"),
    ],
)
def test_a_header_that_contradicts_itself_is_one_sentence(tmp_path, content, data, said):
    with pytest.raises(CheckpointError, match=said):
        open_checkpoint(header(tmp_path / "x.safetensors", content, data))


def test_pickle_is_read_only_when_allowed_and_never_code(tmp_path):
    torch.save({"a": torch.ones(3)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="--allow-pickle"):
        open_checkpoint(tmp_path)
    assert open_checkpoint(tmp_path, allow_pickle=True).read("a").tolist() == [1, 1, 1]

    class Bad:
        def __reduce__(self):
            return print, ("ran",)

    torch.save({"a": Bad()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="holds code"):
        open_checkpoint(tmp_path, allow_pickle=True)


def test_a_folder_without_weights_an_adapter_and_a_path_to_nothing_say_so(tmp_path):
    with pytest.raises(CheckpointError, match="holds no weights"):
        open_checkpoint(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"BASE\+"):
        open_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="no such folder"):
        open_checkpoint(tmp_path / "nothing")


def test_fifty_thousand_tensors_open_quickly(tmp_path):
    content, place = {}, 0
    for number in range(50_000):
        content[f"layers.{number}.weight"] = {
            "dtype": "BF16",
            "shape": [1],
            "data_offsets": [place, place + 2],
        }
        place += 2
    path = header(tmp_path / "x.safetensors", content, b"\0" * place)
    began = time.process_time()
    assert len(open_checkpoint(path).entries) == 50_000
    # Linear work takes a third of a second; anything quadratic takes minutes.
    assert time.process_time() - began < 20


def test_identity_follows_names_and_numbers(tmp_path):
    found = set()
    for number, tensors in enumerate([{"a": torch.ones(9)}, {"b": torch.ones(9)}, {"a": torch.zeros(9)}]):
        save_file(tensors, tmp_path / f"{number}.safetensors")
        opened = open_checkpoint(tmp_path / f"{number}.safetensors")
        assert identity(opened) == identity(opened)
        found.add(identity(opened))
    assert len(found) == 3
