"""The engine: streams what memory merges, survives what happens to long runs, and says what is wrong."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.unit.merging import made_checkpoints as made
from umaf.checkpoints import draft_of
from umaf.errors import CheckpointError, ConfigError, NumericalError, OutputError
from umaf.merging.recipes.read import read_recipe
from umaf.merging.running import crew, execute
from umaf.merging.running.apply import merge_states
from umaf.merging.running.room import CHUNK
from umaf.merging.stages import merge, plan_merge
from umaf.merging.writing.card import card_of, read_manifest

LONG = 3 * CHUNK + 24
METHODS = ("mean_of_weights", "task_arithmetic", "ties", "dare_ties", "della", "tsv_m", "sce", "pcb")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return made.family(tmp_path_factory.mktemp("family"), long=LONG)


def recipe(folders, method, **keys):
    if method == "mean_of_weights":
        method = "linear"
    return made.recipe(folders, method, **keys)


@pytest.mark.parametrize("method", METHODS)
def test_a_streamed_merge_has_the_bits_of_one_in_memory(folders, method, tmp_path, monkeypatch):
    monkeypatch.setattr(crew, "RUN", CHUNK)
    asked = recipe(folders, method, seed=5)
    base, *experts = map(made.read, folders)
    expected = merge_states(
        str(asked["method"]),
        experts,
        base=base if method != "mean_of_weights" else None,
        config=made.CONFIG,
        seed=5,
    )
    for workers, shard in ((1, 10**9), (3, 20_000)):
        out = merge(asked, tmp_path / f"out-{workers}", workers=workers, shard_bytes=shard)
        found = made.read(out)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert len(list(out.glob("*.safetensors"))) > 2


def test_what_the_folder_holds(folders, tmp_path):
    (folders[1] / "README.md").write_text("---\nlicense: mit\n---\n")
    (folders[0] / "generation_config.json").write_text("{}")
    out = merge(recipe(folders, "ties", dtype="float32", options={"density": 0.5}), tmp_path / "out")
    manifest = read_manifest(out)
    for file, checksum in manifest["shards"].items():
        assert hashlib.sha256((out / file).read_bytes()).hexdigest() == checksum
    assert manifest["tensors"]["lm_head.weight"]["options"]["density"] == [0.5, 0.5, 0.5]
    assert json.loads((out / "config.json").read_text())["dtype"] == "float32"
    assert {tensor.dtype for tensor in made.read(out).values()} == {torch.float32}
    assert (out / "generation_config.json").is_file()
    card = (out / "README.md").read_text()
    assert "| mit |" in card and "method: ties" in card and card == card_of(manifest)
    assert read_recipe(manifest["recipe"]) == read_recipe(
        recipe(folders, "ties", dtype="float32", options={"density": 0.5})
    )
    assert not list(tmp_path.glob(".*"))
    (folders[1] / "README.md").unlink()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("method", ["mean_of_weights", "ties", "dare_linear", "tsv_m"])
def test_nan_in_an_input_is_named_by_file_and_tensor(tmp_path, bad, method):
    folders = made.family(tmp_path)
    file = sorted(folders[2].glob("*.safetensors"))[0]
    tensors = load_file(file)
    name = "model.layers.0.self_attn.q_proj.weight"
    tensors[name][3] = bad
    save_file(tensors, file)
    with pytest.raises(NumericalError, match=rf"expert-2/.*: {name} holds"):
        merge(recipe(folders, method), tmp_path / "out")
    assert not (tmp_path / "out").exists() and not draft_of(tmp_path / "out").exists()


def test_an_output_that_is_in_the_way(folders, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    merge(recipe(folders, "ties"), out)
    before = {file: file.read_bytes() for file in out.iterdir()}
    with pytest.raises(OutputError, match="empty"):
        merge(recipe(folders, "task_arithmetic"), out)
    assert before == {file: file.read_bytes() for file in out.iterdir()}


def test_an_output_inside_an_input_is_refused(folders):
    for out in (folders[1], folders[1] / "merged"):
        with pytest.raises(ConfigError, match="name another folder"):
            merge(recipe(folders, "ties"), out)


def test_the_config_comes_from_the_base_else_from_the_first(tmp_path):
    folders = [
        made.write(tmp_path / name, made.state(i), max_position_embeddings=i) for i, name in enumerate("abcd")
    ]
    for first in (1, 2, 3):
        order = [folders[first], *(one for one in folders[1:] if one is not folders[first])]
        asked = {
            "umaf": 1,
            "method": "linear",
            "models": list(map(str, order)),
            "allow": ["max_position_embeddings"],
        }
        out = merge(asked, tmp_path / f"linear-{first}")
        assert json.loads((out / "config.json").read_text())["max_position_embeddings"] == first
    asked = made.recipe(folders, "task_arithmetic", allow=["max_position_embeddings"])
    out = merge(asked, tmp_path / "arithmetic")
    assert json.loads((out / "config.json").read_text())["max_position_embeddings"] == 0


def test_nobody_is_asked_over_the_network(folders, tmp_path, monkeypatch):
    def refuse(*words, **keys):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.chdir(tmp_path)
    one, two = (made.write(Path(f"inter/stage{i}"), made.state(i)) for i in (1, 2))
    merge({"umaf": 1, "method": "linear", "models": [str(one), str(two)]}, Path("out/merged"))


SLOW = """
import sys, time
from umaf.merging.running import crew
from umaf.merging.stages import merge
real = crew.merge_span
def slow(*words, **keys):
    time.sleep(0.05)
    return real(*words, **keys)
crew.merge_span = slow
merge(sys.argv[1], sys.argv[2], workers=2, resume=len(sys.argv) > 3)
"""


def test_killed_and_resumed(folders, tmp_path):
    path, out = tmp_path / "recipe.yml", tmp_path / "out"
    path.write_text(json.dumps(recipe(folders, "dare_ties", seed=1)))
    whole = merge(path, tmp_path / "whole")
    run = subprocess.Popen(
        [
            sys.executable,
            "-c",
            SLOW,
            str(path),
            str(out),
        ]
    )
    journal = draft_of(out) / ".journal.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (
        journal.is_file() and len(journal.read_text().splitlines()) > 4
    ):
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert not out.exists() and not (draft_of(out) / "config.json").exists()
    kept = len(journal.read_text().splitlines()) - 1
    done = []
    merge(path, out, resume=True, progress=lambda what, entries: done.append(what) if entries else None)
    assert 0 < len(set(done)) <= len(made.read(whole)) - kept + 1
    expected = made.read(whole)
    assert all(torch.equal(one, expected[name]) for name, one in made.read(out).items())
    assert read_manifest(out)["shards"] == read_manifest(whole)["shards"]
    assert not draft_of(out).exists()


def test_only_the_same_merge_is_resumed(folders, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with pytest.raises(OutputError, match="nothing to resume"):
        merge(recipe(folders, "ties"), out, resume=True)

    def stop(*words, **keys):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(crew.Crew, "merge", stop)
        with pytest.raises(KeyboardInterrupt):
            merge(recipe(folders, "ties"), out, workers=1)
    assert draft_of(out).is_dir() and not out.exists()
    with pytest.raises(OutputError, match="another result"):
        merge(recipe(folders, "ties", options={"density": 0.3}), out, resume=True)
    with pytest.raises(OutputError, match="another result"):
        merge(recipe(folders, "ties"), out, resume=True, seed=9)
    merge(recipe(folders, "ties"), out, resume=True)


def test_what_was_damaged_since_is_made_anew(folders, tmp_path, monkeypatch):
    out = tmp_path / "out"
    real, made_so_far = crew.merge_span, []

    def some(plan, span, target, **keys):
        if len(made_so_far) > 5:
            raise KeyboardInterrupt
        made_so_far.append(plan.jobs[span.job].name)
        return real(plan, span, target, **keys)

    with monkeypatch.context() as patch:
        patch.setattr(crew, "merge_span", some)
        with pytest.raises(KeyboardInterrupt):
            merge(recipe(folders, "ties"), out, workers=1)
    (file,) = draft_of(out).glob("*.safetensors")
    content = bytearray(file.read_bytes())
    length = int.from_bytes(content[:8], "little")
    start, stop = json.loads(content[8 : 8 + length])[made_so_far[1]]["data_offsets"]
    content[8 + length + (start + stop) // 2] ^= 0xFF
    file.write_bytes(content)
    again = []
    merge(
        recipe(folders, "ties"),
        out,
        resume=True,
        progress=lambda what, entries: again.append(what) if entries else None,
    )
    assert made_so_far[1] in again and made_so_far[0] not in again
    expected = made.read(merge(recipe(folders, "ties"), tmp_path / "whole"))
    assert all(torch.equal(one, expected[name]) for name, one in made.read(out).items())


def test_a_full_disk_is_found_before_a_number_is_computed(folders, tmp_path, monkeypatch):
    def full(file, start, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match="No space left"):
        merge(recipe(folders, "ties"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_whole_numbers_must_agree(tmp_path):
    folders = made.family(tmp_path)
    for number, folder in enumerate(folders):
        tensors = made.read(folder) | {"model.layers.0.counter": torch.tensor([7, 7 + (number == 2)])}
        for file in folder.glob("*.safetensors*"):
            file.unlink()
        made.write(folder, tensors)
    with pytest.raises(CheckpointError, match=r"model\.layers\.0\.counter cannot be averaged"):
        merge(recipe(folders, "ties"), tmp_path / "out")


def test_stages_are_made_first_and_removed(folders, tmp_path):
    first = {"method": "linear", "models": [str(folders[1]), str(folders[2])]}
    asked = {
        "umaf": 1,
        "method": "linear",
        "stages": {"one": first},
        "models": ["one", str(folders[3])],
        "dtype": "float32",
    }
    out = merge(asked, tmp_path / "out")
    _, a, b, c = (made.read(folder) for folder in folders)
    name = "lm_head.weight"
    half = ((a[name].float() + b[name].float()) / 2).bfloat16().float()
    torch.testing.assert_close(made.read(out)[name], (half + c[name].float()) / 2)
    assert [one.name for one in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("wrong", ["model", "place"])
def test_what_stops_the_last_merge_is_told_before_the_first_is_made(folders, tmp_path, monkeypatch, wrong):
    def never(*words, **keys):
        raise AssertionError("a weight was merged")

    monkeypatch.setattr(crew.Crew, "merge", never)
    other = str(tmp_path / "none") if wrong == "model" else str(folders[3])
    first = {"method": "linear", "models": [str(folders[1]), str(folders[2])]}
    asked = {"umaf": 1, "method": "linear", "stages": {"one": first}, "models": ["one", other]}
    out = tmp_path / "out"
    if wrong == "place":
        out.mkdir()
        (out / "mine").touch()
    with pytest.raises(OutputError if wrong == "place" else CheckpointError, match=r"not an empty|none"):
        merge(asked, out)
    with pytest.raises(OutputError if wrong == "place" else CheckpointError, match=r"not an empty|none"):
        plan_merge(asked, out)
    assert not (tmp_path / ".out.stages").exists()


def test_a_plan_looks_at_the_place_and_the_disk(folders, tmp_path, monkeypatch):
    asked = recipe(folders, "ties")
    plan_merge(asked, tmp_path / "out")
    with pytest.raises(ConfigError, match="lies in the model"):
        plan_merge(asked, folders[1])
    with pytest.raises(OutputError, match="not an empty folder"):
        plan_merge(asked, folders[1].parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=100))
    with pytest.raises(OutputError, match=r"has 0\.1 kB free; make room"):
        plan_merge(asked, tmp_path / "out")


def test_a_plan_reads_no_weight(folders):
    plan, later = plan_merge(recipe(folders, "ties"))
    assert later == () and plan.bytes_written == sum(
        one.numel() * 2 for one in made.read(folders[0]).values()
    )
    with pytest.raises(ConfigError, match="at least 1 worker"):
        execute.execute(plan, "never", workers=0)
