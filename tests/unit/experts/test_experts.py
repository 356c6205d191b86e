"""Experts as values and folders; their decompositions; what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from umaf.errors import ExpertError, NumericalError, OutputError
from umaf.experts import (
    base_identity,
    check_expert,
    decompose,
    identity_expert,
    load_expert,
    new_card,
    save_expert,
    svf_modules,
)
from umaf.experts.expert import Expert
from umaf.models import open_model


@pytest.fixture(scope="module")
def llama(pico):
    return open_model(pico("llama"))


@pytest.fixture
def expert(llama):
    plain = identity_expert(llama, "sums")
    source = torch.Generator().manual_seed(1)
    z = {name: 2 * torch.rand(each.shape, generator=source) for name, each in plain.z.items()}
    return replace(plain, z=z)


def test_names_of_modules_can_be_chosen_in_every_family(pico):
    bert, mixtral, t5 = (open_model(pico(name)) for name in ("bert", "mixtral", "t5"))
    assert svf_modules(bert, ["attention"])[3] == "bert.encoder.layer.0.attention.output.dense"
    assert svf_modules(bert, ["mlp"])[:2] == [
        "bert.encoder.layer.0.intermediate.dense",
        "bert.encoder.layer.0.output.dense",
    ]
    both = svf_modules(bert, ["attention"]) + svf_modules(bert, ["mlp"])
    assert sorted(both) == sorted(svf_modules(bert)) and len(both) == len(set(both))
    assert svf_modules(mixtral, ["mlp"])[0] == "model.layers.0.mlp.experts.gate_up_proj"
    assert len(svf_modules(t5, ["EncDecAttention.q", "layers.9", "wo"][::2])) == 2 + 4
    assert svf_modules(bert, ["layer.1", "query"])[0] == "bert.encoder.layer.0.attention.self.query"


def test_an_unknown_module_is_refused_in_one_sentence(llama):
    with pytest.raises(ExpertError, match=r'Modules "moon" were asked for, .* use attention, mlp, or one of'):
        svf_modules(llama, ["mlp", "moon"])


def test_factors_come_back_from_the_cache_as_they_were_and_are_found_once(llama, tmp_path, monkeypatch):
    names = svf_modules(llama, ["mlp"])
    plain = decompose(llama, names)
    first = decompose(llama, names, cache=tmp_path)
    monkeypatch.setattr(torch.linalg, "svd", None)  # a second decomposition would fail
    told = []
    again = decompose(llama, names, cache=tmp_path, progress=told.append)
    assert told == names
    for name in names:
        for part in ("u", "s", "vh"):
            values = [getattr(each[name], part) for each in (plain, first, again)]
            assert torch.equal(values[0], values[1]) and torch.equal(values[0], values[2])
            assert values[0].dtype == torch.float32
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == len(names) and all(path.suffix == ".safetensors" for path in files)


def test_a_damaged_file_of_the_cache_is_made_again(llama, tmp_path):
    name = "model.layers.0.mlp.up_proj"
    wanted = decompose(llama, [name], cache=tmp_path)[name].s.clone()
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    assert torch.equal(decompose(llama, [name], cache=tmp_path)[name].s, wanted)


def test_an_interrupted_decomposition_keeps_what_it_has(llama, tmp_path):
    names = svf_modules(llama, ["mlp"])

    def stop(name):
        if name == names[2]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decompose(llama, names, cache=tmp_path, progress=stop)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 3 and not list(tmp_path.rglob("*.part"))


def test_a_cache_that_cannot_be_written_is_one_sentence(llama, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"decomposition cache .* cannot be written"):
        decompose(llama, svf_modules(llama)[:1], cache=tmp_path / "file")


def test_nan_has_no_singular_values(pico):
    model = open_model(pico("llama"))
    with torch.no_grad():
        model.net.model.layers[0].mlp.up_proj.weight[0, 0] = torch.nan
    with pytest.raises(NumericalError, match=r"up_proj.* holds NaN"):
        decompose(model, ["model.layers.0.mlp.up_proj"])


def test_stacked_experts_are_decomposed_one_by_one(pico):
    model = open_model(pico("mixtral"))
    name = "model.layers.1.mlp.experts.down_proj"
    found = decompose(model, [name])[name]
    weight = model.net.get_parameter(name)
    assert found.s.shape == (4, 32)
    assert torch.allclose((found.u * found.s.unsqueeze(1)) @ found.vh, weight, atol=1e-5)


def test_the_identity_of_a_base_sees_a_trained_layer_and_not_the_number_type(pico):
    one = open_model(pico("llama"))
    before = base_identity(one)
    assert before == base_identity(open_model(pico("llama"), dtype="bfloat16"))
    with torch.no_grad():
        one.net.model.layers[1].self_attn.k_proj.weight.mul_(1.01)
    assert base_identity(one) != before


def test_a_folder_holds_the_same_expert_and_little_else(expert, tmp_path):
    made = replace(
        expert, card=expert.card.model_copy(update={"curves": {"reward": [0.1, None]}, "reward": "exact"})
    )
    folder = save_expert(made, tmp_path / "sums")
    back = load_expert(folder)
    assert back.name == "sums" and back.card == made.card
    assert list(back.z) == list(made.z) and all(torch.equal(back.z[name], made.z[name]) for name in made.z)
    assert sorted(path.name for path in folder.iterdir()) == ["expert.json", "expert.safetensors"]
    assert (
        sum(path.stat().st_size for path in folder.iterdir())
        < 4 * sum(z.numel() for z in made.z.values()) + 4000
    )


def test_an_expert_with_nan_is_not_saved(expert, tmp_path):
    expert.z["model.layers.0.mlp.up_proj"][3] = torch.nan
    with pytest.raises(ExpertError, match="holds NaN"):
        save_expert(expert, tmp_path / "x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["card", "weights", "missing", "unknown"])
def test_a_damaged_folder_is_one_sentence(expert, tmp_path, damage):
    folder = save_expert(expert, tmp_path / "sums")
    card = json.loads((folder / "expert.json").read_text())
    if damage == "card":
        (folder / "expert.json").write_text("{")
    if damage == "weights":
        (folder / "expert.safetensors").write_bytes(b"nothing")
    if damage == "missing":
        card["modules"].append("model.layers.7.mlp.up_proj")
        (folder / "expert.json").write_text(json.dumps(card))
    if damage == "unknown":
        (folder / "expert.json").write_text(json.dumps({**card, "colour": "red"}))
    wanted = {"card": "cannot be read", "weights": "unreadable numbers", "missing": "only in one of"}
    with pytest.raises(ExpertError, match=wanted.get(damage, "cannot be read")) as caught:
        load_expert(folder)
    assert "\n" not in str(caught.value)


def test_an_expert_of_other_weights_is_refused(pico, expert):
    model = open_model(pico("llama"))
    check_expert(expert, model)
    with torch.no_grad():
        model.net.model.layers[0].mlp.up_proj.weight.neg_()
    with pytest.raises(
        ExpertError, match=r'"sums" was made for other weights .* train an expert for this one'
    ):
        check_expert(expert, model)


def test_an_expert_of_another_architecture_is_refused(pico, expert):
    with pytest.raises(ExpertError, match=r"\(llama\), and .* \(gpt2\) lacks some of its modules"):
        check_expert(expert, open_model(pico("gpt2")))


def test_an_expert_with_another_rank_is_refused(llama, expert):
    name = "model.layers.0.mlp.up_proj"
    odd = Expert("odd", {name: torch.ones(31)}, new_card(llama, [name]))
    with pytest.raises(ExpertError, match=r"has \[31\] multipliers .* \[32\] singular values"):
        check_expert(odd, llama)
