"""Merged checkpoints of every architecture and method: transformers loads them, and they say what memory says."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    Qwen2Config,
)

from tests.unit.merging import made_checkpoints as made
from umaf.errors import RegistryError
from umaf.merging.registry import METHODS, method_of
from umaf.merging.running.apply import merge_states
from umaf.merging.stages import merge
from umaf.models.quiet import quiet

AUTOS = {
    "llama": AutoModelForCausalLM,
    "qwen2": AutoModelForCausalLM,
    "mixtral": AutoModelForCausalLM,
    "bert": AutoModelForMaskedLM,
    "gpt2": AutoModelForCausalLM,
    "t5": AutoModelForSeq2SeqLM,
}
REQUIRED = {"t": 0.3, "scale": 0.5, "layers": 1}


@pytest.fixture(scope="module")
def models(pico, tmp_path_factory):
    """`models(kind)` gives the folders of a base and three experts, in shards."""
    done: dict[str, list[Path]] = {}

    def of(kind: str) -> list[Path]:
        if kind not in done:
            root = tmp_path_factory.mktemp(kind)
            source = qwen2(root / "pico") if kind == "qwen2" else pico(kind)
            config = json.loads((source / "config.json").read_text())
            base = made.read(source)
            done[kind] = []
            for number in range(4):
                draw = torch.Generator().manual_seed(number)
                near = {
                    name: one + 0.02 * number * torch.randn(one.shape, generator=draw)
                    if one.is_floating_point()
                    else one
                    for name, one in base.items()
                }
                done[kind].append(made.write(root / f"model-{number}", near, shards=3))
                (done[kind][-1] / "config.json").write_text(json.dumps(config))
        return done[kind]

    return of


def qwen2(folder: Path) -> Path:
    config = Qwen2Config(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=384,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(1)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def logits(kind: str, folder: Path) -> torch.Tensor:
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net, info = AUTOS[kind].from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    text = torch.arange(3, 19).view(2, 8)
    extra = {"decoder_input_ids": text} if kind == "t5" else {}
    with torch.no_grad():
        return net.eval()(input_ids=text, **extra).logits


def some(method: str) -> tuple[int, dict[str, float]]:
    """Give a number of experts that a method takes, and the options that it must be given."""
    try:
        needs, options = method_of(method).needs, method_of(method).options
    except RegistryError as problem:
        pytest.skip(f"{method} cannot be imported ({problem})")
    fewest, most = needs.models
    given = {name: REQUIRED.get(name, 0.5) for name, option in options.items() if option.required}
    return min(max(3, fewest), 3 if most is None else most), given


@pytest.mark.parametrize("kind", AUTOS)
@pytest.mark.parametrize("method", METHODS.names())
def test_a_merged_folder_says_what_memory_says(models, kind, method, tmp_path):
    count, options = some(method)
    folders = models(kind)[: count + 1]
    asked = made.recipe(folders, method, dtype="float32", seed=2, options=options)
    based = method_of(method).needs.base != "none"
    if not based:
        del asked["base"]
    out = merge(asked, tmp_path / "out", workers=1, shard_bytes=60_000)
    base, *experts = map(made.read, folders)
    config = json.loads((folders[0] / "config.json").read_text())
    expected = merge_states(
        method, experts, base=base if based else None, config=config, seed=2, dtype=torch.float32, **options
    )
    found = made.read(out)
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)
    memory = made.write(tmp_path / "memory", expected, shards=1)
    (memory / "config.json").write_text((out / "config.json").read_text())
    there = logits(kind, out)
    assert torch.isfinite(there).all() and torch.equal(there, logits(kind, memory))
    if method in {"linear", "task_arithmetic"}:
        share = 1 / count if method == "linear" else 1.0
        ground = torch.zeros(()) if method == "linear" else None
        for name, one in found.items():
            start = base[name].double() if ground is None else ground
            rows = sum(expert[name].double() - start for expert in experts)
            torch.testing.assert_close(one.double(), start + share * rows, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", AUTOS)
def test_a_merge_in_half_precision_loads(models, kind, tmp_path):
    folders = models(kind)
    out = merge(made.recipe(folders, "linear", dtype="bfloat16"), tmp_path / "out")
    config = AutoConfig.from_pretrained(out)
    assert config.dtype == torch.bfloat16
    assert {one.dtype for one in made.read(out).values() if one.is_floating_point()} == {torch.bfloat16}
    size = sum(math.prod(one.shape) * 2 for one in made.read(out).values())
    assert sum(file.stat().st_size for file in out.glob("*.safetensors")) < size + 100_000
    assert torch.isfinite(logits(kind, out)).all()
