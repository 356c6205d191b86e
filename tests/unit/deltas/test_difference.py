"""What changed between two checkpoints, against plain arithmetic on whole tensors."""

from __future__ import annotations

import sys

import pytest
import torch
from safetensors.torch import save_file

from umaf.checkpoints import open_checkpoint
from umaf.deltas.difference import difference, layer_and_kind
from umaf.errors import CheckpointError, NumericalError


def opened(path, tensors):
    save_file(tensors, path)
    return open_checkpoint(path)


@pytest.fixture
def pair(tmp_path):
    generator = torch.Generator().manual_seed(0)
    first = {
        "model.layers.0.mlp.up_proj.weight": torch.randn(30, 20, generator=generator),
        "model.layers.10.mlp.up_proj.weight": torch.randn(30, 20, generator=generator),
        "model.layers.2.norm.weight": torch.ones(20),
        "lm_head.weight": torch.randn(7, 20, generator=generator).to(torch.bfloat16),
        "old": torch.zeros(2),
        "wider": torch.zeros(2),
    }
    second = {name: tensor.clone() for name, tensor in first.items() if name != "old"}
    second["model.layers.0.mlp.up_proj.weight"][:15] += 0.1
    second["lm_head.weight"] = second["lm_head.weight"] * 2
    second |= {"wider": torch.zeros(3), "new": torch.zeros(1)}
    return (
        opened(tmp_path / "a.safetensors", first),
        opened(tmp_path / "b.safetensors", second),
        first,
        second,
    )


def test_numbers_are_those_of_whole_tensors(pair, monkeypatch):
    monkeypatch.setattr(sys.modules["umaf.deltas.difference"], "CHUNK", 64)
    a, b, first, second = pair
    found = {change.name: change for change in difference(a, b).tensors}
    for name, change in found.items():
        x, y = first[name].double(), second[name].double()
        assert change.entries == x.numel()
        assert change.relative == pytest.approx(float((y - x).norm() / x.norm()), rel=1e-4)
        assert change.cosine == pytest.approx(float((x * y).sum() / x.norm() / y.norm()), abs=1e-6)
        assert change.changed == float((x != y).double().mean())
        assert change.largest == pytest.approx(float((y - x).abs().max()), rel=1e-4)


def test_groups_and_what_only_one_has(pair):
    a, b, _, _ = pair
    found = difference(a, b)
    assert [one.name for one in found.layers] == [
        "model.layers.0",
        "model.layers.2",
        "model.layers.10",
        "outside",
    ]
    kinds = {one.name: one for one in found.kinds}
    assert (kinds["mlp.up_proj.weight"].entries, kinds["mlp.up_proj.weight"].changed) == (1200, 0.25)
    assert found.cells["model.layers.0", "mlp.up_proj.weight"].changed == 0.5
    assert len(found.cells) == 3
    assert (found.only_first, found.only_second) == (("old",), ("new",))
    assert found.reshaped == (("wider", (2,), (3,)),)
    assert found.total.entries == 1200 + 20 + 140


def test_from_zero_is_infinite_and_to_itself_is_nothing(tmp_path):
    zero = opened(tmp_path / "a.safetensors", {"w": torch.zeros(3)})
    one = opened(tmp_path / "b.safetensors", {"w": torch.ones(3)})
    there, same = difference(zero, one).total, difference(zero, zero).total
    assert (there.relative, there.cosine, there.changed) == (float("inf"), 0.0, 1.0)
    assert (same.relative, same.cosine, same.changed) == (0.0, 1.0, 0.0)


def test_large_numbers_and_integers_are_compared(tmp_path):
    a = opened(tmp_path / "a.safetensors", {"w": torch.full((3,), 1e25), "i": torch.tensor([2**60])})
    b = opened(tmp_path / "b.safetensors", {"w": torch.full((3,), 2e25), "i": torch.tensor([2**60 + 1])})
    found = {one.name: one for one in difference(a, b).tensors}
    assert found["w"].relative == pytest.approx(1.0)
    assert found["i"].changed == 1.0


def test_dtypes_may_differ(tmp_path):
    w = torch.arange(9.0)
    a = opened(tmp_path / "a.safetensors", {"w": w})
    b = opened(tmp_path / "b.safetensors", {"w": w.to(torch.bfloat16)})
    assert difference(a, b).total.changed == 0.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_names_its_file(tmp_path, bad):
    a = opened(tmp_path / "good.safetensors", {"w": torch.ones(3)})
    b = opened(tmp_path / "bad.safetensors", {"w": torch.tensor([1, bad, 1])})
    for pair in ((a, b), (b, a)):
        with pytest.raises(NumericalError, match=r"bad\.safetensors: w"):
            difference(*pair)


def test_nothing_in_common_is_one_sentence(tmp_path):
    a = opened(tmp_path / "a.safetensors", {"w": torch.ones(3)})
    b = opened(tmp_path / "b.safetensors", {"v": torch.ones(3)})
    with pytest.raises(CheckpointError, match="no tensor of one name"):
        difference(a, b)


@pytest.mark.parametrize(
    ("name", "layer", "kind"),
    [
        ("transformer.h.11.attn.c_attn.weight", "transformer.h.11", "attn.c_attn.weight"),
        (
            "encoder.block.0.layer.1.DenseReluDense.wi.weight",
            "encoder.block.0",
            "layer.*.DenseReluDense.wi.weight",
        ),
        ("model.norm.weight", "outside", "model.norm.weight"),
        ("0.weight", "0", "weight"),
    ],
)
def test_names_split(name, layer, kind):
    assert layer_and_kind(name) == (layer, kind)
