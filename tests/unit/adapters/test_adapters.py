"""Adapters: PEFT folders for every architecture, sums of updates, and hooks."""

from __future__ import annotations

import copy
import json
import shutil
import warnings
from dataclasses import replace

import peft
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.conftest import ARCHITECTURES
from umaf.adapters import (
    attach,
    combine,
    cores,
    factors_of,
    load_adapter,
    lora_modules,
    norms,
    read_factors,
    sharing_copy,
    truncate,
    weight_of,
    write_lora,
)
from umaf.errors import AdapterError, OutputError
from umaf.models import fresh_classifier, open_model, weights_hash
from umaf.readout import label_logits, make_readout, prepare

TEXTS = ["the film was good", "rain fell on the hills and a kind doctor wrote a letter"]
LABELS = ["positive", "negative"]
TARGETS = [name for name in ARCHITECTURES if name != "rwkv"]


def some_factors(model, *, ranks=(2, 3), experts=True, size=0.2):
    """Random factors for every module, of different ranks."""
    source = torch.Generator().manual_seed(5)
    factors = {}
    for i, name in enumerate(lora_modules(model, experts=experts)):
        *rest, out, inside = weight_of(model, name).shape
        rank = ranks[i % len(ranks)]
        a = torch.randn(*rest, rank, inside, generator=source) * size
        factors[name] = (a, torch.randn(*rest, out, rank, generator=source) * size)
    return factors


def by_hand(model, factors):
    """The model with B A added into a copy of its weights."""
    changed = replace(model, net=copy.deepcopy(model.net))
    with torch.no_grad():
        for name, (a, b) in factors.items():
            weight_of(changed, name).add_(b @ a)
    return changed


def answers(model, readout=None):
    readout = readout or make_readout(model, LABELS, "Answer")
    with torch.no_grad():
        return label_logits(model, prepare(model, TEXTS, readout), readout)


@pytest.mark.parametrize("head", ["auto", "base", "classifier"])
@pytest.mark.parametrize("architecture", TARGETS)
def test_folders_load_by_peft_and_equal_the_sum(pico, tmp_path, architecture, head):
    model = open_model(pico(architecture), head="base" if head == "base" else "auto")
    if head == "classifier":
        model = fresh_classifier(model, LABELS)
    factors = some_factors(model)
    readout = make_readout(model, LABELS, "Answer")
    expected, before = answers(by_hand(model, factors), readout), answers(model, readout)
    folder = write_lora(tmp_path / "adapter", model, factors, provenance={"route": "solve"})
    with warnings.catch_warnings():
        # PEFT 0.21 asks transformers 5.23 by a name that was changed; everything else is an error.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        net = peft.PeftModel.from_pretrained(sharing_copy(model.net), str(folder)).eval()
        result = net.load_adapter(str(folder), adapter_name="default")
    assert not [key for key in result.missing_keys if "lora_" in key] and not result.unexpected_keys
    torch.testing.assert_close(answers(replace(model, net=net), readout), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(answers(load_adapter(model, folder), readout), expected, atol=1e-5, rtol=1e-5)
    assert (expected - before).abs().max() > 1e-3
    back = read_factors(folder)
    assert back.keys() == factors.keys()
    for name, (a, b) in factors.items():
        torch.testing.assert_close(back[name][1] @ back[name][0], b @ a)
    # The model itself was not touched.
    torch.testing.assert_close(answers(model, readout), before)
    assert not any("lora" in name for name, _ in model.net.named_modules())


def test_scaling_is_one_for_every_reader(pico, tmp_path):
    model = open_model(pico("mixtral"))
    folder = write_lora(tmp_path / "adapter", model, some_factors(model), provenance={"seed": 1})
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["lora_alpha"] == config["r"] and config["alpha_pattern"] == config["rank_pattern"]
    assert not config["use_rslora"] and not config["use_dora"] and config["lora_dropout"] == 0
    net = load_adapter(model, folder).net
    scalings = [m.scaling["default"] for m in net.modules() if isinstance(m, peft.tuners.lora.LoraLayer)]
    assert scalings and set(scalings) == {1.0}
    card = json.loads((folder / "umaf.json").read_text())
    assert card["provenance"] == {"seed": 1} and card["target"]["model_type"] == "mixtral"


def test_equal_updates_give_equal_files(pico, tmp_path):
    model = open_model(pico("gpt2"))
    one = write_lora(tmp_path / "one", model, some_factors(model), provenance={})
    two = write_lora(tmp_path / "two", model, some_factors(model), provenance={})
    for file in ("adapter_config.json", "adapter_model.safetensors", "umaf.json"):
        assert (one / file).read_bytes() == (two / file).read_bytes()


def test_nothing_half_written(pico, tmp_path, monkeypatch):
    model = open_model(pico("gpt2"))
    factors = some_factors(model)

    def interrupted(*_args, **_more):
        raise KeyboardInterrupt

    monkeypatch.setattr(peft.PeftModel, "save_pretrained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_lora(tmp_path / "adapter", model, factors, provenance={})
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    write_lora(tmp_path / "adapter", model, factors, provenance={})
    with pytest.raises(OutputError, match="exists"):
        write_lora(tmp_path / "adapter", model, factors, provenance={})


def test_factors_that_do_not_fit(pico, tmp_path):
    model = open_model(pico("gpt2"))
    name = lora_modules(model)[0]
    out, inside = weight_of(model, name).shape
    good = (torch.ones(2, inside), torch.ones(out, 2))
    for factors, words in (
        ({}, "no factors"),
        ({"transformer.h.9.attn.c_attn": good}, "no module"),
        ({name: (good[0].T, good[1])}, "A must end in"),
        ({name: (good[0] * float("nan"), good[1])}, "NaN"),
    ):
        with pytest.raises(AdapterError, match=words):
            write_lora(tmp_path / "adapter", model, factors, provenance={})
    assert not list(tmp_path.iterdir())
    with pytest.raises(AdapterError, match="source but not a target"):
        lora_modules(open_model(pico("rwkv")))


def test_adapters_that_do_not_fit(pico, tmp_path):
    model = open_model(pico("gpt2"))
    folder = write_lora(tmp_path / "adapter", model, some_factors(model), provenance={})
    with pytest.raises(AdapterError, match="other shapes"):
        load_adapter(open_model(pico("llama")), folder)
    with pytest.raises(AdapterError, match="other shapes"):
        load_adapter(open_model(pico("gpt2"), head="base"), folder)
    with pytest.raises(AdapterError, match="check the path"):
        load_adapter(model, tmp_path / "nowhere")
    foreign = shutil.copytree(folder, tmp_path / "foreign")
    (foreign / "umaf.json").unlink()
    load_adapter(model, foreign)
    state = load_file(foreign / "adapter_model.safetensors")
    state.pop(sorted(state)[0])
    save_file(state, foreign / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="does not fit"):
        load_adapter(model, foreign)
    with pytest.raises(AdapterError, match="does not fit"):
        load_adapter(open_model(pico("llama")), foreign)


def test_adapters_trained_by_others_are_read_with_their_scaling(pico, tmp_path):
    model = open_model(pico("mixtral"))
    config = peft.LoraConfig(
        r=2,
        lora_alpha=8,
        target_modules=["q_proj"],
        target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
        init_lora_weights=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = peft.get_peft_model(sharing_copy(model.net), config).eval()
        net.save_pretrained(tmp_path / "foreign", save_embedding_layers=False)
    changed = by_hand(model, read_factors(tmp_path / "foreign"))
    torch.testing.assert_close(answers(changed), answers(replace(model, net=net)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", ["bert", "gpt2", "t5", "mixtral"])
def test_factors_can_be_attached_trained_and_taken(pico, architecture):
    model = open_model(pico(architecture))
    factors, readout = some_factors(model), make_readout(model, LABELS, "Answer")
    adapted = attach(model, factors, trainable=True)
    torch.testing.assert_close(
        answers(adapted, readout), answers(by_hand(model, factors)), atol=1e-5, rtol=1e-5
    )
    learning = [p for p in adapted.net.parameters() if p.requires_grad]
    assert len(learning) == 2 * len(factors) and all(p.requires_grad for p in model.net.parameters())
    optimiser = torch.optim.SGD(learning, lr=0.1)
    label_logits(adapted, prepare(adapted, TEXTS, readout), readout)[:, 0].sum().backward()
    optimiser.step()
    taken = factors_of(adapted)
    assert any(
        not torch.equal(taken[name][1], b)
        for name, (_, b) in factors.items()
        if b.shape == taken[name][1].shape
    )
    torch.testing.assert_close(
        answers(by_hand(model, taken)), answers(adapted, readout), atol=1e-5, rtol=1e-5
    )
    with pytest.raises(AdapterError, match="already"):
        attach(adapted, factors)
    with pytest.raises(AdapterError, match="no adapter"):
        factors_of(model)


def test_a_copy_shares_its_weights(pico):
    model = open_model(pico("t5"))
    copied = sharing_copy(model.net)
    pairs = zip(model.net.parameters(), copied.parameters(), strict=True)
    assert all(a.data_ptr() == b.data_ptr() for a, b in pairs)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 999),
    weights=st.lists(st.floats(-2, 2), min_size=1, max_size=4),
    experts=st.sampled_from([(), (3,)]),
)
def test_combining_is_exact(seed, weights, experts):
    source = torch.Generator().manual_seed(seed)
    parts = [
        {
            "m": (
                torch.randn(*experts, 1 + i, 5, generator=source, dtype=torch.float64),
                torch.randn(*experts, 4, 1 + i, generator=source, dtype=torch.float64),
            )
        }
        for i in range(len(weights))
    ]
    a, b = combine(parts, weights)["m"]
    expected = sum(w * (part["m"][1] @ part["m"][0]) for w, part in zip(weights, parts, strict=True))
    torch.testing.assert_close(b @ a, expected)


def test_combining_refuses_what_cannot_be_added():
    one, other = {"m": (torch.ones(1, 3), torch.ones(2, 1))}, {"m": (torch.ones(1, 4), torch.ones(2, 1))}
    with pytest.raises(AdapterError, match="one weight per adapter"):
        combine([one], [1.0, 2.0])
    with pytest.raises(AdapterError, match="differ in"):
        combine([one, other], [1.0, 2.0])
    a, b = combine([one, one], [0.0, 0.0])["m"]
    assert not (b @ a).any()


@pytest.mark.parametrize("experts", [(), (3,)])
def test_truncation_is_the_best_of_its_rank_and_tells_the_loss(experts):
    a, b = torch.randn(*experts, 6, 9), torch.randn(*experts, 7, 6)
    full = b @ a
    small, lost = truncate({"m": (a, b)}, 2)
    u, s, vh = torch.linalg.svd(full, full_matrices=False)
    best = (u[..., :2] * s[..., None, :2]) @ vh[..., :2, :]
    product = small["m"][1] @ small["m"][0]
    torch.testing.assert_close(product, best, atol=1e-4, rtol=1e-4)
    assert lost["m"] == pytest.approx(float((full - best).norm() / full.norm()), rel=1e-4)
    same, nothing = truncate({"m": (a, b)}, 6)
    torch.testing.assert_close(same["m"][1] @ same["m"][0], full, atol=1e-4, rtol=1e-4)
    assert nothing["m"] == 0
    assert norms({"m": (a, b)})["m"] == pytest.approx(float(full.norm()), rel=1e-4)
    with pytest.raises(AdapterError, match="at least 1"):
        truncate({"m": (a, b)}, 0)


def _basis(model, rank=2):
    source = torch.Generator().manual_seed(9)
    shapes = {name: weight_of(model, name).shape for name in lora_modules(model)}
    return {
        name: (torch.randn(out, rank, generator=source), torch.randn(inside, rank, generator=source) * 0.1)
        for name, (out, inside) in shapes.items()
    }


def _hooks(model):
    return sum(len(module._forward_hooks) for module in model.net.modules())


@pytest.mark.parametrize("architecture", TARGETS)
def test_cores_are_an_update_of_the_weights(pico, architecture):
    model = open_model(pico(architecture))
    basis = _basis(model)
    values = torch.randn(len(basis), 2, 2, generator=torch.Generator().manual_seed(2)) * 0.3
    factors = {name: (v.T, u @ values[i]) for i, (name, (u, v)) in enumerate(basis.items())}
    with cores(model, basis, values):
        inside = answers(model)
    torch.testing.assert_close(inside, answers(by_hand(model, factors)), atol=1e-4, rtol=1e-4)
    assert _hooks(model) == 0


@pytest.mark.parametrize("architecture", TARGETS)
def test_per_text_cores_equal_a_loop_and_give_jacobians(pico, architecture):
    model = open_model(pico(architecture))
    basis, readout = _basis(model), make_readout(model, LABELS, "Answer")
    batch = prepare(model, TEXTS, readout)
    values = torch.randn(len(TEXTS), len(basis), 2, 2, generator=torch.Generator().manual_seed(3)) * 0.3
    values.requires_grad_()
    with cores(model, basis, values):
        together = label_logits(model, batch, readout)
    jacobian = torch.autograd.grad(together[:, 0].sum(), values)[0]
    for i in range(len(TEXTS)):
        own = values[i].detach().requires_grad_()
        with cores(model, basis, own):
            alone = label_logits(model, batch.take([i]), readout)[0]
        torch.testing.assert_close(alone, together[i], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(torch.autograd.grad(alone[0], own)[0], jacobian[i], atol=1e-3, rtol=1e-3)


def test_cores_on_top_of_an_adapter(pico, tmp_path):
    model = open_model(pico("gpt2"))
    factors = some_factors(model)
    adapted = load_adapter(model, write_lora(tmp_path / "adapter", model, factors, provenance={}))
    assert lora_modules(adapted) == lora_modules(model)
    basis = _basis(adapted)
    values = torch.randn(len(basis), 2, 2, generator=torch.Generator().manual_seed(4)) * 0.3
    more = {name: (v.T, u @ values[i]) for i, (name, (u, v)) in enumerate(basis.items())}
    with cores(adapted, basis, values):
        inside = answers(adapted)
    both = combine([factors, more], [1.0, 1.0])
    torch.testing.assert_close(inside, answers(by_hand(model, both)), atol=1e-4, rtol=1e-4)
    write_lora(tmp_path / "both", adapted, both, provenance={})
    torch.testing.assert_close(answers(load_adapter(model, tmp_path / "both")), inside, atol=1e-4, rtol=1e-4)


def test_hooks_leave_after_an_exception_and_a_bad_basis(pico):
    model = open_model(pico("llama"))
    basis, before = _basis(model), weights_hash(model)
    values = torch.zeros(len(basis), 2, 2)
    with pytest.raises(ZeroDivisionError), cores(model, basis, values):
        assert _hooks(model) == len(basis)
        raise ZeroDivisionError
    assert _hooks(model) == 0
    broken = {**basis, "model.layers.7.mlp.up_proj": next(iter(basis.values()))}
    with pytest.raises(AdapterError, match="no module"), cores(model, broken, torch.zeros(len(broken), 2, 2)):
        pass
    with pytest.raises(AdapterError, match="must end in"), cores(model, basis, values[1:]):
        pass
    with (
        pytest.raises(AdapterError, match="one core per text"),
        cores(model, basis, torch.zeros(3, *values.shape)),
    ):
        answers(model)
    assert _hooks(model) == 0 and weights_hash(model) == before
