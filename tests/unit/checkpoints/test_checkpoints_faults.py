"""Opening checkpoints that are broken, pickled, or on a hub; and headers judged as the library judges them."""

from __future__ import annotations

import json
import os
import random
import struct

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from umaf.checkpoints import Writer, begin, draft_of, finish, identity, lay_out, open_checkpoint
from umaf.checkpoints.headers import read_header
from umaf.errors import CheckpointError

JUNK = [None, True, -1, 1.5, 2.0, "3", [], {}, 2**60, [1], "f32", "F8_E8M0", "I16"]


# Headers: what the library refuses is refused, and what it reads is read the same.


def spoilt(header, data, rng):
    header, name = json.loads(json.dumps(header)), rng.choice("abcd")
    field = rng.choice(["dtype", "shape", "data_offsets"])
    junk = rng.choice(JUNK)
    way = rng.randrange(8)
    if way == 0:
        header[name][field] = junk
    elif way == 1:
        header[name] = junk
    elif way == 2:
        header[name]["data_offsets"][rng.randrange(2)] += rng.choice([-1, 1, 8, -24])
    elif way == 3:
        header[name]["shape"] += [rng.choice([0, 1, 2, True])]
    elif way == 4:
        data = (data + b"xx")[: rng.randrange(len(data) + 3)]
    elif way == 5:
        del header[name][field]
    elif way == 6:
        header[name]["more"] = junk
    else:
        header["__metadata__"] = junk
    text = json.dumps(header).encode() + b" " * rng.randrange(3)
    length = len(text) + rng.choice([0, 0, 0, 0, 0, 0, -1, 1, 100, 2**60])
    return struct.pack("<Q", length) + text + data


def by_the_library(path):
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
            return {name: (one.get_dtype(), tuple(one.get_shape())) for name, one in slices.items()}
    except SafetensorError:
        return None


def test_spoilt_headers_are_judged_as_by_the_library(tmp_path):
    tensors = {
        "a": torch.arange(6.0).reshape(2, 3),
        "b": torch.ones(3).bool(),
        "c": torch.zeros(0, 4),
        "d": torch.tensor(3),
    }
    path, rng = tmp_path / "x.safetensors", random.Random(0)
    save_file(tensors, path, metadata={"format": "pt"})
    content = path.read_bytes()
    data = 8 + struct.unpack("<Q", content[:8])[0]
    judged = set()
    for _ in range(600):
        path.write_bytes(spoilt(json.loads(content[8:data]), content[data:], rng))
        try:
            found = {name: (entry.dtype, entry.shape) for name, entry in read_header(path).items()}
        except CheckpointError as problem:
            found = None
            assert "x.safetensors" in str(problem) and "\n" not in str(problem)
        assert found == by_the_library(path)
        judged.add(found is None)
    assert judged == {True, False}


def test_numbers_at_an_odd_byte_are_read(tmp_path):
    listed = {
        "m": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
        "f": {"dtype": "F32", "shape": [2], "data_offsets": [3, 11]},
    }
    text = json.dumps(listed).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"abc" + struct.pack("<ff", 1.5, 2.5))
    assert open_checkpoint(path).read("f").tolist() == [1.5, 2.5]


def test_a_pointer_of_git_lfs_and_endless_nesting_are_told_apart(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        open_checkpoint(path)
    text = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(CheckpointError, match="nests"):
        open_checkpoint(path)


# Folders and files.


def test_shards_without_their_index_are_not_guessed_at(tmp_path):
    for number in (1, 2):
        save_file({str(number): torch.ones(1)}, tmp_path / f"model-0000{number}-of-00002.safetensors")
    with pytest.raises(CheckpointError, match=r"2 weight files.*no model.safetensors.index.json"):
        open_checkpoint(tmp_path)


def test_an_index_leads_to_no_file_outside_its_folder(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "x.safetensors")
    folder = tmp_path / "model"
    folder.mkdir()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../x.safetensors"}}))
    with pytest.raises(CheckpointError, match="missing"):
        open_checkpoint(folder)


def test_a_file_that_is_cut_after_it_was_opened_is_one_sentence(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(1000), "b": torch.ones(1000)}, path)
    opened = open_checkpoint(tmp_path)
    os.truncate(path, 5000)
    assert opened.read("a").sum() == 1000
    for ask in (lambda: opened.read("b"), lambda: identity(opened)):
        with pytest.raises(CheckpointError, match=r"model.safetensors was cut short within b"):
            ask()


def test_a_tensor_that_is_not_there_is_answered_with_the_nearest(tmp_path):
    save_file({"lm_head.weight": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r'Did you mean "lm_head.weight"\?'):
        open_checkpoint(tmp_path).flat("lm_head.weigth")


def test_identity_sees_one_changed_layer_and_not_how_files_are_cut(tmp_path):
    tensors = {str(number): torch.full((5000,), float(number)) for number in range(40)}
    layout = lay_out([(name, "F32", (5000,)) for name in tensors], shard_bytes=100_000)
    writer = Writer(begin(tmp_path / "many"), layout)
    for name, tensor in tensors.items():
        writer.slot(name).copy_(tensor)
        writer.done(name)
    writer.close()
    finish(draft_of(tmp_path / "many"), tmp_path / "many")
    save_file(tensors, tmp_path / "one.safetensors")
    torch.save(tensors, tmp_path / "one.pt")
    first = identity(open_checkpoint(tmp_path / "one.safetensors"))
    assert first == identity(open_checkpoint(tmp_path / "many"))
    assert first == identity(open_checkpoint(tmp_path / "one.pt", allow_pickle=True))
    save_file(tensors | {"17": tensors["17"] + 1}, tmp_path / "one.safetensors")
    assert first != identity(open_checkpoint(tmp_path / "one.safetensors"))


# Pickles.


def test_pickles_of_old_torch_and_in_shards_are_read(tmp_path):
    torch.save({"a": torch.ones(3)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert open_checkpoint(tmp_path / "old.pt", allow_pickle=True).read("a").sum() == 3
    (tmp_path / "pytorch_model.bin.index.json").write_text(
        json.dumps({"weight_map": {"a": "1.bin", "b": "2.bin"}})
    )
    torch.save({"a": torch.ones(3)}, tmp_path / "1.bin")
    with pytest.raises(CheckpointError, match=r"2.bin is missing"):
        open_checkpoint(tmp_path, allow_pickle=True)
    torch.save({"b": torch.ones(2, 2).t()}, tmp_path / "2.bin")
    assert open_checkpoint(tmp_path, allow_pickle=True).read("b").shape == (2, 2)
    torch.save({"a": torch.ones(3)}, tmp_path / "2.bin")
    with pytest.raises(CheckpointError, match=r"holds a, and so does .*1.bin"):
        open_checkpoint(tmp_path, allow_pickle=True)


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ([torch.ones(1)], "besides tensors"),
        ({"a": 3}, "besides tensors"),
        ({"a": torch.eye(3).to_sparse()}, "a is sparse"),
    ],
)
def test_what_is_no_state_dict_of_plain_tensors_is_refused(tmp_path, held, said):
    torch.save(held, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=said):
        open_checkpoint(tmp_path / "x.pt", allow_pickle=True)


def test_junk_and_other_files_are_refused(tmp_path):
    (tmp_path / "x.bin").write_bytes(b"junk")
    with pytest.raises(CheckpointError, match="broken or holds code"):
        open_checkpoint(tmp_path / "x.bin", allow_pickle=True)
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(CheckpointError, match="no weight file"):
        open_checkpoint(tmp_path / "x.json", allow_pickle=True)


# The hub.


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that gives a folder, or the error that is put into `problem`; `asked` lists what it was asked."""

    class Hub:
        asked, folder, problem = [], tmp_path / "snapshot", None

        def give(self, name, **how):
            self.asked.append((name, how))
            if self.problem is not None:
                raise self.problem
            return str(self.folder)

    found = Hub()
    found.asked = []
    found.folder.mkdir()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", found.give)
    monkeypatch.chdir(tmp_path)
    return found


def test_only_a_hub_id_is_told_to_the_hub(hub, tmp_path):
    (tmp_path / "stages").mkdir()
    for name in ("stages/first", "./org/model", "a/b/c", "model", "org/x.safetensors"):
        with pytest.raises(CheckpointError, match="check the path"):
            open_checkpoint(name)
    assert hub.asked == []
    save_file({"a": torch.ones(1)}, hub.folder / "model.safetensors")
    opened = open_checkpoint("org/model", revision="v1")
    assert opened.name == "org/model" and opened.folder == hub.folder
    assert hub.asked[0][0] == "org/model" and hub.asked[0][1]["revision"] == "v1"
    assert not any("bin" in pattern for pattern in hub.asked[0][1]["allow_patterns"])


def test_pickles_are_fetched_only_where_they_are_allowed_and_all_there_is(hub):
    torch.save({"a": torch.ones(1)}, hub.folder / "pytorch_model.bin")
    assert open_checkpoint("org/model", allow_pickle=True).entries["a"].size == 4
    assert [any("bin" in one for one in how["allow_patterns"]) for _, how in hub.asked] == [False, True]


class _Response:
    headers, status_code, request, text = {}, 404, None, ""


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (GatedRepoError, "gated.*hf auth login"),
        (RepositoryNotFoundError, "no model on the hub"),
        (LocalEntryNotFoundError, "cannot be asked"),
        (ConnectionError, "cannot be asked"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(hub, kind, said):
    hub.problem = (
        kind("no", response=_Response()) if kind in (GatedRepoError, RepositoryNotFoundError) else kind("no")
    )
    with pytest.raises(CheckpointError, match=said):
        open_checkpoint("org/model")
