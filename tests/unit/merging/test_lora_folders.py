"""Merging LoRA folders: which can be merged, and what is said of those that cannot."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from umaf.deltas import Adapter, LowRank, Target, add, read_adapter, write_adapter
from umaf.errors import AdapterError, ConfigError, OutputError, UmafError
from umaf.merging.lora.lowrank import merge_loras
from umaf.merging.lora.same_base import check_mergeable
from umaf.merging.registry import METHODS, method_of
from umaf.merging.running.thin import Thin

NAME = "model.layers.0.mlp.up_proj"


def some(seed, rank=2, shape=(8, 6), batch=()):
    made = torch.Generator().manual_seed(seed)
    a = torch.randn(*batch, rank, shape[1], generator=made)
    return LowRank(a, torch.randn(*batch, shape[0], rank, generator=made))


def two(folder, *, bases=("", ""), **change):
    made = []
    for seed, base in enumerate(bases):
        targets = {
            NAME: Target("linear", some(seed, 2 + seed)),
            f"only.layers.{seed}": Target("linear", some(9, 1)),
        }
        made.append(write_adapter(folder / f"a{seed}", targets, base=base))
    path = made[-1] / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    return made


def dense(folder):
    return {name: target.delta.dense() for name, target in read_adapter(folder).targets.items()}


def test_a_sum_of_different_ranks_and_modules(tmp_path):
    found = merge_loras("task_arithmetic", two(tmp_path), tmp_path / "out", weight=[1.0, -2.0], scale=0.5)
    new, (one, other) = dense(tmp_path / "out"), (dense(tmp_path / f"a{seed}") for seed in (0, 1))
    assert torch.allclose(new[NAME], 0.5 * one[NAME] - other[NAME], atol=1e-5)
    assert torch.allclose(new["only.layers.0"], 0.5 * one["only.layers.0"], atol=1e-5)
    assert torch.allclose(new["only.layers.1"], -other["only.layers.1"], atol=1e-5)
    assert {row.name: row.rank for row in found.modules}[NAME] == 5 and all(
        row.exact for row in found.modules
    )
    record = json.loads((tmp_path / "out" / "umaf.json").read_text())
    assert record["method"] == "task_arithmetic" and record["options"]["weight"] == [1.0, -2.0]


def test_what_cancels_is_not_written(tmp_path):
    folder = two(tmp_path)[0]
    with pytest.raises(AdapterError, match="changes nothing"):
        merge_loras("task_arithmetic", [folder, folder], tmp_path / "out", weight=[1.0, -1.0])
    assert not (tmp_path / "out").exists()


def test_stacked_experts_are_merged_expert_by_expert(tmp_path):
    name = "model.layers.0.mlp.experts.down_proj"
    deltas = [some(seed, 2, (8, 6), (3,)) for seed in (0, 1)]
    for seed, delta in enumerate(deltas):
        write_adapter(tmp_path / str(seed), {name: Target("parameter", delta)})
    folders = [tmp_path / "0", tmp_path / "1"]
    merge_loras("mean", folders, tmp_path / "mean")
    wanted = add(deltas, [0.5, 0.5]).dense()
    assert torch.allclose(dense(tmp_path / "mean")[name], wanted, atol=1e-5)
    merge_loras("ties", folders, tmp_path / "ties", density=1.0)
    assert dense(tmp_path / "ties")[name].shape == (3, 8, 6)


def test_every_method_takes_adapters_or_says_what_it_needs(tmp_path):
    folders = two(tmp_path)
    for name in METHODS.names():
        needs, options = method_of(name).needs, method_of(name).options
        given = {key: 0.5 for key, option in options.items() if option.required}
        try:
            found = merge_loras(name, folders, tmp_path / name, rank=6, **given)
        except ConfigError as problem:
            assert needs.base == "none" or needs.ground or needs.models[1] == 1, (name, problem)
            assert str(problem).endswith(".") and "\n" not in str(problem)
        else:
            assert found.modules and all(row.error < 1.0 for row in found.modules), name


def test_random_methods_draw_from_the_seed(tmp_path):
    folders = two(tmp_path)
    for number, seed in enumerate((1, 1, 2)):
        merge_loras("dare_linear", folders, tmp_path / f"out{number}", seed=seed, density=0.5)
    one, same, other = (dense(tmp_path / f"out{number}")[NAME] for number in range(3))
    assert torch.equal(one, same) and not torch.allclose(one, other)


BAD = {
    "different bases": ({"bases": ("org/one", "org/two")}, {}, "org/one.*org/two"),
    "an unknown option": ({}, {"densty": 1.0}, "density"),
    "too many weights": ({}, {"weight": [1.0]}, "1 numbers for 2"),
    "a rank of nothing": ({}, {"rank": 0}, "at least 1"),
    "an unknown method": ({}, {"method": "tiess"}, "ties"),
    "a copy": ({}, {"method": "copy"}, "merges nothing"),
    "weights": ({}, {"method": "karcher"}, "name the base"),
    "no mean": ({}, {"method": "linear", "normalize": False}, "name the base"),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes(case, tmp_path):
    made, options, words = BAD[case]
    folders, method = two(tmp_path, **made), options.pop("method", "ties")
    with pytest.raises(UmafError, match=words) as told:
        merge_loras(method, folders, tmp_path / "out", **options)
    assert str(told.value).endswith((".", '"?')) and "\n" not in str(told.value)
    assert not (tmp_path / "out").exists()


def test_shapes_of_different_bases(tmp_path):
    one = two(tmp_path)[0]
    other = write_adapter(tmp_path / "other", {NAME: Target("linear", some(3, 2, (9, 6)))})
    with pytest.raises(AdapterError, match=r"\[8, 6\].*\[9, 6\]"):
        merge_loras("mean", [one, other], tmp_path / "out")


def test_what_factors_cannot_hold_is_refused():
    rows = (torch.tensor([1]), torch.ones(1, 4))
    with pytest.raises(AdapterError, match="replaces rows of embed"):
        check_mergeable([Adapter("x", {}, {}, tokens={"embed": rows})], None)
    with pytest.raises(AdapterError, match=r"trains up\.bias"):
        check_mergeable([Adapter("x", {"bias": "all"}, {}, whole={"up.bias": torch.ones(2)})], None)
    copies = [
        Adapter(str(value), {}, {}, frozen={"embed.weight": torch.full((2,), value)}) for value in (0.0, 1.0)
    ]
    with pytest.raises(AdapterError, match="bases differ"):
        check_mergeable(copies, None)
    assert len(check_mergeable(copies[:1], None)) == 1


def test_a_folder_that_exists(tmp_path):
    folders = two(tmp_path)
    with pytest.raises(OutputError):
        merge_loras("mean", folders, folders[0])


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_a_feed_gives_any_range(transposed, batch):
    feed = Thin(some(0, 2, (8, 6), batch), transposed)
    whole = feed.delta.dense()
    whole = (whole.mT if transposed else whole).reshape(-1)
    for start, stop in ((0, 1), (5, 7), (3, 40), (0, feed.numel), (feed.numel - 5, feed.numel)):
        out = torch.empty(stop - start)
        feed.fill(start, stop, out)
        assert torch.allclose(out, whole[start:stop], atol=1e-6)
        Thin(feed.delta, transposed, torch.ones(feed.numel)).fill(start, stop, out)
        assert torch.allclose(out, whole[start:stop] + 1, atol=1e-6)


def test_merging_adapters_imports_neither_transformers_nor_peft():
    program = "import sys, umaf.merging.lora.lowrank; print([m for m in ('transformers', 'peft') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
