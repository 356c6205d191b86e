"""LoRA folders merged into one: equal to the dense float32 merge, and loaded by PEFT without a key missing or left."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from umaf.checkpoints import open_checkpoint
from umaf.deltas import lora
from umaf.errors import AdapterError, ConfigError
from umaf.merging.lora.lowrank import merge_loras
from umaf.merging.running.apply import merge_states
from umaf.models.quiet import quiet

ZOO = Path(__file__).resolve().parents[2] / "zoo" / "models"
AUTO = {"bert": AutoModelForMaskedLM, "t5": AutoModelForSeq2SeqLM}
LAYERS = {
    "bert": ["query", "intermediate.dense"],
    "gpt2": ["c_attn", "c_proj", "c_fc"],
    "llama": ["q_proj", "k_proj", "down_proj"],
    "mixtral": ["q_proj"],
    "t5": ["q", "wi"],
}
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
EXACT = ["task_arithmetic", "mean", "linear", "tsv_m", "iso_c", "wudi", "opcm"]
ENTRIES = ["ties", "dare_linear", "knots", "della", "breadcrumbs"]


def open_net(kind, base=None):
    with quiet():
        return AUTO.get(kind, AutoModelForCausalLM).from_pretrained(
            str(base or ZOO / f"{kind}-1m"), dtype=torch.float32
        )


def make(kind, folder, seed, *, base=None, **options):
    """Write an adapter full of noise through PEFT."""
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = {
            "r": 3 + seed,
            "lora_alpha": 4,
            "target_modules": LAYERS[kind],
            "use_rslora": seed == 1,
            **options,
        }
        net = get_peft_model(open_net(kind, base), LoraConfig(**settings))
        torch.manual_seed(seed)
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                if parameter.requires_grad:
                    scale = (
                        0.1 if "lora_" in name and "magnitude" not in name else 0.1 * parameter.abs().mean()
                    )
                    parameter.add_(scale * torch.randn_like(parameter))
        net.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def adapters(tmp_path_factory):
    made = {}

    def give(kind):
        if kind not in made:
            root = tmp_path_factory.mktemp(f"adapters-{kind}")
            options = {"target_parameters": EXPERTS} if kind == "mixtral" else {}
            if kind in ("bert", "gpt2"):
                options["lora_bias"] = True
            made[kind] = [make(kind, root / str(seed), seed, **options) for seed in range(3)]
            # The last changes less than the others.
            if kind == "llama":
                made[kind][2] = make(kind, root / "few", 5, target_modules=["v_proj", "q_proj"])
        return made[kind]

    return give


def dense(method, kind, folders, *, bare=False, **options):
    """Merge whole models in memory; give what is changed in the base, by tensor.

    A method that compares entries is run on a base of zeros: the last bits of base + delta - base decide close calls.
    """
    base = open_checkpoint(ZOO / f"{kind}-1m")
    found = [lora(folder, base) for folder in folders]
    names = sorted({name for one in found for name in one})
    weights = {name: base.read(name).float() * (not bare) for name in names}
    states = [{name: one.apply(name, weights[name]) for name in names} for one in found]
    own = {} if method == "linear" else {"base": weights}
    merged = merge_states(method, states, config=base.config, dtype=torch.float32, **own, **options)
    return {name: merged[name] - weights[name] for name in names}


def changes(kind, folder):
    base = open_checkpoint(ZOO / f"{kind}-1m")
    found = lora(folder, base)
    return {name: found.apply(name, base.read(name).float()) - base.read(name).float() for name in found}


def distance(one, other):
    off = sum(float((one[name] - other[name]).double().square().sum()) if name in one else
              float(other[name].double().square().sum()) for name in other)  # fmt: skip
    return (off / sum(float(wanted.double().square().sum()) for wanted in other.values())) ** 0.5


WEIGHTS = [0.7, -0.4, 1.1]


def options_of(method):
    return {} if method in ("iso_c", "wudi", "opcm", "knots") else {"weight": WEIGHTS}


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("kind", LAYERS)
def test_merges_in_factors_are_the_dense_ones(kind, method, adapters, tmp_path):
    options = options_of(method)
    found = merge_loras(method, adapters(kind), tmp_path / "out", **options)
    assert all(module.exact and module.error < 1e-5 for module in found.modules)
    # A method for matrices splits what transformers fuses, in memory as on disk; experts of a mixture are one by one.
    wanted = dense(method, kind, adapters(kind), **options)
    off = distance(changes(kind, tmp_path / "out"), wanted)
    if kind == "mixtral" and method in ("tsv_m", "iso_c", "wudi", "opcm"):
        assert off < 5e-3  # the file keeps gate and up apart by name, and so do the factors: same matrices
    else:
        assert off < 2e-4 if method in ("tsv_m", "iso_c", "wudi", "opcm") else off < 1e-5


@pytest.mark.parametrize("method", ENTRIES)
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_other_merges_are_the_dense_ones_truncated(kind, method, adapters, tmp_path):
    options = {"density": 0.5} if method != "breadcrumbs" else {}
    found = merge_loras(method, adapters(kind), tmp_path / "out", rank=128, seed=3, **options)
    assert not any(module.exact for module in found.modules)
    wanted = dense(method, kind, adapters(kind), bare=True, seed=3, **options)
    assert distance(changes(kind, tmp_path / "out"), wanted) < 1e-3
    assert found.error < 1e-4


def test_the_error_that_is_reported_is_the_one_that_is_made(adapters, tmp_path):
    for method, options in (("ties", {"density": 0.5}), ("task_arithmetic", {"weight": WEIGHTS})):
        found = merge_loras(method, adapters("llama"), tmp_path / method, rank=4, **options)
        off = distance(
            changes("llama", tmp_path / method), dense(method, "llama", adapters("llama"), **options)
        )
        assert found.error == pytest.approx(off, rel=1e-3) and off > 0.05
        assert {module.rank for module in found.modules} == {4}


def test_energy_takes_the_lowest_rank_that_holds_it(adapters, tmp_path):
    all_of_it = merge_loras("mean", adapters("llama"), tmp_path / "a")
    most = merge_loras("mean", adapters("llama"), tmp_path / "b", energy=0.9)
    assert most.error**2 <= 0.1 and all_of_it.error < 1e-6
    assert sum(one.rank for one in most.modules) < sum(one.rank for one in all_of_it.modules)


@pytest.mark.parametrize("kind", LAYERS)
def test_peft_loads_what_was_merged(kind, adapters, tmp_path):
    merge_loras("task_arithmetic", adapters(kind), tmp_path / "out", weight=WEIGHTS)
    ids = torch.tensor([[5, 9, 300, 2, 7]])
    inputs = {"input_ids": ids} if kind != "t5" else {"input_ids": ids, "decoder_input_ids": ids[:, :3]}
    with torch.no_grad(), quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of what PEFT asks transformers for
        net = open_net(kind)
        state = changes(kind, tmp_path / "out")
        loaded = PeftModel.from_pretrained(net, str(tmp_path / "out")).eval()
        result = loaded.load_adapter(str(tmp_path / "out"), adapter_name="again")
        assert not [key for key in result.missing_keys if "again" in key] and not result.unexpected_keys
        logits = loaded(**inputs).logits
        loaded.merge_and_unload().save_pretrained(tmp_path / "merged")
    merged, base = open_checkpoint(tmp_path / "merged"), open_checkpoint(ZOO / f"{kind}-1m")
    for name in base.entries:
        wanted = base.read(name).float() + state.get(name, 0)
        assert torch.allclose(merged.read(name).float(), wanted, atol=1e-5), name
    with torch.no_grad():
        assert torch.allclose(open_net(kind, tmp_path / "merged").eval()(**inputs).logits, logits, atol=1e-3)


def test_peft_faults_are_not_repeated(tmp_path):
    """One rsLoRA, and one DoRA, merged alone with the weight 1, are themselves."""
    base = open_checkpoint(ZOO / "llama-1m")
    root = make("llama", tmp_path / "rs", 1)
    found = merge_loras("task_arithmetic", [root], tmp_path / "one", weight=1.0)
    assert distance(changes("llama", tmp_path / "one"), changes("llama", root)) < 1e-6 and found.error < 1e-6
    dora = make("llama", tmp_path / "dora", 2, use_dora=True)
    with pytest.raises(AdapterError, match=r"DoRA.*base"):
        merge_loras("task_arithmetic", [dora], tmp_path / "two", weight=1.0)
    found = merge_loras("task_arithmetic", [dora], tmp_path / "two", weight=1.0, rank=128, base=base)
    assert distance(changes("llama", tmp_path / "two"), changes("llama", dora)) < 1e-4
    small = merge_loras("task_arithmetic", [dora], tmp_path / "three", weight=1.0, rank=4, base=base)
    off = distance(changes("llama", tmp_path / "three"), changes("llama", dora))
    assert small.error == pytest.approx(off, rel=1e-3) and off > 0.01


def test_methods_on_weights_need_the_base(adapters, tmp_path):
    two = adapters("llama")[:2]
    with pytest.raises(ConfigError, match="name the base"):
        merge_loras("slerp", two, tmp_path / "out")
    base = open_checkpoint(ZOO / "llama-1m")
    found = merge_loras("slerp", two, tmp_path / "out", base=base, rank=128)
    assert found.modules and not any(module.exact for module in found.modules)


def test_modules_saved_whole(tmp_path):
    """The head of an untied base is merged too, and PEFT finds it."""
    with quiet():
        net = open_net("llama")
        net.config.tie_word_embeddings = False
        net.lm_head.weight = torch.nn.Parameter(net.lm_head.weight.detach() * 0.5)
        net.save_pretrained(tmp_path / "base")
        made = []
        for seed in (0, 1):
            wrapped = get_peft_model(
                open_net("llama", tmp_path / "base"),
                LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"]),
            )
            torch.manual_seed(seed)
            with torch.no_grad():
                for parameter in wrapped.parameters():
                    if parameter.requires_grad:
                        parameter.add_(0.01 * torch.randn_like(parameter))
            wrapped.save_pretrained(str(tmp_path / str(seed)))
            made.append(tmp_path / str(seed))
    base = open_checkpoint(tmp_path / "base")
    with pytest.raises(AdapterError, match=r"lm_head.weight as a whole"):
        merge_loras("mean", made, tmp_path / "out")
    merge_loras("mean", made, tmp_path / "out", base=base)
    old = base.read("lm_head.weight")
    own = [lora(folder, base).apply("lm_head.weight", old) for folder in made]
    new = lora(tmp_path / "out", base).apply("lm_head.weight", old)
    assert torch.allclose(new, (own[0] + own[1]) / 2, atol=1e-6) and not torch.allclose(new, old)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        loaded = PeftModel.from_pretrained(open_net("llama", tmp_path / "base"), str(tmp_path / "out"))
        result = loaded.load_adapter(str(tmp_path / "out"), adapter_name="again")
    assert not [key for key in result.missing_keys if "again" in key] and not result.unexpected_keys


@pytest.mark.parametrize("method", ["mean", "ties", "tsv_m"])
def test_embeddings_heads_and_routers(method, tmp_path):
    """Tables and heads are no matrices of layers: a method for matrices leaves them to its fallback."""
    with quiet():
        net = open_net("mixtral")
        net.config.tie_word_embeddings = False
        net.lm_head.weight = torch.nn.Parameter(net.lm_head.weight.detach() * 0.5)
        net.save_pretrained(tmp_path / "base")
    made = []
    for seed in (0, 1):
        options = {
            "target_modules": ["q_proj", "embed_tokens", "lm_head"],
            "target_parameters": ["mlp.gate.weight"],
        }
        made.append(make("mixtral", tmp_path / str(seed), seed, base=tmp_path / "base", **options))
    settings = {"density": 0.9} if method == "ties" else {}
    found = merge_loras(method, made, tmp_path / "out", rank=128 if settings else "auto", **settings)
    names = {module.name for module in found.modules}
    assert {"model.embed_tokens", "lm_head", "model.layers.0.mlp.gate.weight"} <= names
    assert any("base's weights" in note for note in found.notes)
    base = open_checkpoint(tmp_path / "base")
    own, merged = [lora(folder, base) for folder in made], lora(tmp_path / "out", base)
    weights = {name: torch.zeros(base.entries[name].shape) for name in own[0]}
    states = [{name: one.apply(name, base.read(name)) - base.read(name) for name in weights} for one in own]
    wanted = merge_states(method, states, base=weights, config=base.config, **settings)
    got = {name: merged.apply(name, base.read(name)) - base.read(name) for name in merged}
    assert distance(got, wanted) < 1e-3
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = PeftModel.from_pretrained(open_net("mixtral", tmp_path / "base"), str(tmp_path / "out"))
        result = loaded.load_adapter(str(tmp_path / "out"), adapter_name="again")
        assert not [key for key in result.missing_keys if "again" in key] and not result.unexpected_keys
        loaded.merge_and_unload().save_pretrained(tmp_path / "merged")
    after = open_checkpoint(tmp_path / "merged")
    for name in base.entries:
        assert torch.allclose(after.read(name), base.read(name) + got.get(name, 0), atol=1e-5), name
