"""A LoRA out of an expert: exact where the change has a low rank, and honest about its error where it has not."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from umaf.checkpoints import open_checkpoint
from umaf.deltas.adapter import read_adapter
from umaf.deltas.extract import Amount, extract_lora, factors, sketch
from umaf.deltas.places import places_of
from umaf.errors import AdapterError, NumericalError, OutputError

UP, DOWN = "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.down_proj.weight"


def opened(path, tensors):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return open_checkpoint(path)


@pytest.fixture
def pair(tmp_path):
    torch.manual_seed(0)
    base = {UP: torch.randn(30, 20), DOWN: torch.randn(20, 30), "model.norm.weight": torch.ones(20)}
    expert = {name: tensor.clone() for name, tensor in base.items()}
    expert[UP] += torch.randn(30, 3) @ torch.randn(3, 20)
    expert["model.norm.weight"] += 1
    expert["score.weight"] = torch.zeros(2, 20)
    return opened(tmp_path / "b.safetensors", base), opened(tmp_path / "e.safetensors", expert), base, expert


def test_a_change_of_rank_three_is_found_whole(pair, tmp_path):
    base, expert, before, after = pair
    found = extract_lora(expert, base, tmp_path / "out", amount=Amount(energy=1.0))
    (row,) = found.modules
    assert (row.name, row.rank, row.error < 1e-6) == ("model.layers.0.mlp.up_proj", 3, True)
    delta = read_adapter(tmp_path / "out").targets[row.name].delta.dense()
    torch.testing.assert_close(before[UP] + delta, after[UP], atol=1e-5, rtol=0)
    assert dict(found.left_out) == {"model.norm.weight": pytest.approx(20**0.5), "score.weight": None}


@pytest.mark.parametrize("rank", [1, 2])
def test_the_error_is_that_of_the_folder(pair, tmp_path, rank):
    base, expert, before, after = pair
    found = extract_lora(expert, base, tmp_path / "out", amount=Amount(rank))
    change = after[UP] - before[UP]
    delta = read_adapter(tmp_path / "out").targets["model.layers.0.mlp.up_proj"].delta
    values = torch.linalg.svdvals(change)
    assert delta.rank == rank
    assert found.error == pytest.approx(float((change - delta.dense()).norm() / change.norm()), rel=1e-4)
    assert found.error == pytest.approx(float(values[rank:].norm() / values.norm()), rel=1e-4)
    said = json.loads((tmp_path / "out/umaf.json").read_text())
    assert said["error"] == found.error and said["left_out"]["score.weight"] is None


def test_auto_keeps_the_energy_it_names():
    torch.manual_seed(1)
    change = torch.randn(40, 60)
    for energy in (0.3, 0.8):
        kept = factors(change, Amount(energy=energy))
        less = factors(change, Amount(kept.rank - 1))
        held = [float(one.dense().square().sum() / change.square().sum()) for one in (less, kept)]
        assert held[0] < energy <= held[1] + 1e-6
    assert factors(change, Amount(energy=1.0, most=7)).rank == 7


def test_stacks_have_one_rank_and_each_its_own_factors():
    torch.manual_seed(2)
    change = torch.stack([torch.outer(torch.randn(8), torch.randn(6)), torch.randn(8, 2) @ torch.randn(2, 6)])
    delta = factors(change, Amount(energy=0.999999))
    assert delta.rank == 2
    torch.testing.assert_close(delta.dense(), change, atol=1e-5, rtol=0)


def test_large_matrices_are_sketched_to_nearly_the_best():
    torch.manual_seed(3)
    values = torch.logspace(0, -2, 600)
    u, v = (torch.linalg.qr(torch.randn(600, 600)).Q for _ in range(2))
    change = u * values @ v
    delta = factors(change, Amount(16), seed=0)
    best = float(values[16:].norm())
    assert float((change - delta.dense()).norm()) < 1.01 * best
    again = sketch(change, 16, seed=0, name="")
    assert torch.equal(again[1], sketch(change, 16, seed=0, name="")[1])


def test_places_of_a_mixture_are_stacked_as_in_memory():
    checkpoint = open_checkpoint("zoo:mixtral-1m")
    places = {place.name: place for place in places_of(checkpoint)}
    first = places["model.layers.0.mlp.experts.gate_up_proj"]
    assert first.tensors[1] == tuple(
        f"model.layers.0.block_sparse_moe.experts.1.{leaf}.weight" for leaf in ("w1", "w3")
    )
    assert first.read(checkpoint).shape == (4, 512, 128)
    assert "model.layers.0.self_attn.q_proj" in places
    assert not [name for name in places if "gate" in name.rpartition(".")[2] and name.endswith(".gate")]


def test_conv1d_is_turned():
    places = {place.name: place for place in places_of(open_checkpoint("zoo:gpt2-1m"))}
    place = places["transformer.h.0.attn.c_attn"]
    assert place.read(open_checkpoint("zoo:gpt2-1m")).shape == (384, 128)


def test_mistakes(pair, tmp_path):
    base, expert, _, after = pair
    with pytest.raises(AdapterError, match="nothing to extract"):
        extract_lora(base, base, tmp_path / "out")
    (tmp_path / "full").mkdir()
    with pytest.raises(OutputError):
        extract_lora(expert, base, tmp_path / "full")
    bad = opened(tmp_path / "bad.safetensors", after | {UP: torch.full((30, 20), float("nan"))})
    with pytest.raises(NumericalError, match=r"bad\.safetensors: model\.layers\.0\.mlp\.up_proj"):
        extract_lora(bad, base, tmp_path / "out")
    for wrong in ({"rank": 0}, {"energy": 0.0}, {"most": 0}):
        with pytest.raises(AdapterError, match="at least 1"):
            Amount(**wrong)
    assert not (tmp_path / "out").exists()


def written(folder, config, names):
    folder.mkdir()
    save_file({name: torch.zeros(4, 6) for name in names}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return open_checkpoint(folder)


@pytest.mark.parametrize(
    ("tied", "found"), [(True, ["model.layers.0.up"]), (False, ["lm_head", "model.layers.0.up"])]
)
def test_a_head_counts_where_it_is_its_own(tmp_path, tied, found):
    names = ("model.layers.0.up.weight", "lm_head.weight", "model.embed_tokens.weight")
    checkpoint = written(tmp_path / "m", {"model_type": "llama", "tie_word_embeddings": tied}, names)
    assert sorted(place.name for place in places_of(checkpoint)) == found


@pytest.mark.parametrize(("kind", "prefix"), [("GPT2LMHeadModel", "transformer."), ("GPT2Model", "")])
def test_a_file_of_the_bare_model_has_the_names_of_the_model_with_a_head(tmp_path, kind, prefix):
    config = {"model_type": "gpt2", "architectures": [kind]}
    checkpoint = written(tmp_path / "m", config, ["h.0.attn.c_attn.weight", "wte.weight"])
    (place,) = places_of(checkpoint)
    assert (place.name, place.transposed) == (f"{prefix}h.0.attn.c_attn", True)


def test_stacks_of_a_file_are_stacks_of_the_adapter(tmp_path):
    base = {"model.layers.0.mlp.experts.down_proj": torch.zeros(3, 5, 4)}
    expert = {name: torch.randn(3, 5, 1) @ torch.randn(3, 1, 4) for name in base}
    first, second = opened(tmp_path / "b.safetensors", base), opened(tmp_path / "e.safetensors", expert)
    found = extract_lora(second, first, tmp_path / "out", amount=Amount(1))
    assert [(row.name, row.rank, row.error < 1e-5) for row in found.modules] == [(*base, 1, True)]
    assert read_adapter(tmp_path / "out").targets[next(iter(base))].delta.shape == (3, 5, 4)
