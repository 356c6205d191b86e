"""Checkpoints for the speed benchmark: a LLaMA of a wanted size with random weights, and experts near it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from umaf import seeds
from umaf.files import whole_folder

SHARDS = 4


@dataclass(frozen=True)
class Size:
    """A LLaMA by its dimensions; two attention heads in four share keys and values."""

    layers: int
    width: int
    hidden: int
    vocabulary: int = 32_000

    @property
    def config(self) -> dict:
        """The `config.json` of such a model."""
        return {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": self.width,
            "intermediate_size": self.hidden, "num_hidden_layers": self.layers, "vocab_size": self.vocabulary,
            "num_attention_heads": self.width // 64, "num_key_value_heads": self.width // 64,
            "tie_word_embeddings": False, "torch_dtype": "bfloat16", "rms_norm_eps": 1e-5,
            "max_position_embeddings": 2048, "rope_theta": 10000.0, "hidden_act": "silu",
            "bos_token_id": 1, "eos_token_id": 2,
        }  # fmt: skip

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's shape, by its name in a checkpoint."""
        found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocabulary, self.width)}
        for layer in range(self.layers):
            stem = f"model.layers.{layer}"
            for part in "qkvo":
                found[f"{stem}.self_attn.{part}_proj.weight"] = (self.width, self.width)
            found[f"{stem}.mlp.gate_proj.weight"] = (self.hidden, self.width)
            found[f"{stem}.mlp.up_proj.weight"] = (self.hidden, self.width)
            found[f"{stem}.mlp.down_proj.weight"] = (self.width, self.hidden)
            found[f"{stem}.input_layernorm.weight"] = (self.width,)
            found[f"{stem}.post_attention_layernorm.weight"] = (self.width,)
        return found | {"model.norm.weight": (self.width,), "lm_head.weight": (self.vocabulary, self.width)}

    @property
    def parameters(self) -> int:
        """How many numbers a checkpoint holds."""
        return sum(torch.Size(shape).numel() for shape in self.shapes.values())


HALF = Size(14, 1536, 4096)
"""494 million parameters, 0.99 GB in bfloat16."""
GROWTH = (Size(4, 768, 2048), Size(14, 1536, 4096), Size(16, 2048, 5504), Size(28, 2304, 6144))
"""0.08, 0.49, 0.9 and 1.9 thousand million parameters."""


def write_models(size: Size, experts: int, home: Path) -> list[Path]:
    """Write a base and experts that differ from it by a few per cent, where they are not there yet.

    Returns:
        Their folders, the base first.
    """
    folders = [home / f"{size.parameters // 10**6}m-{number}" for number in range(experts + 1)]
    for number, folder in enumerate(folders):
        if not folder.exists():
            with whole_folder(folder) as draft:
                _write(size, number, draft)
    return folders


def _write(size: Size, number: int, folder: Path) -> None:
    names = list(size.shapes)
    share = -(-len(names) // SHARDS)
    index = {}
    for shard in range(SHARDS):
        file = f"model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors"
        chosen = names[shard * share : (shard + 1) * share]
        index |= dict.fromkeys(chosen, file)
        save_file({name: _tensor(size.shapes[name], name, number) for name in chosen}, folder / file)
    total = 2 * size.parameters
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": index})
    )
    (folder / "config.json").write_text(json.dumps(size.config))


def _tensor(shape: tuple[int, ...], name: str, number: int) -> torch.Tensor:
    # Drawn once for a base; a delta is small everywhere and larger in one entry of a hundred, as fine-tuning leaves it.
    value = torch.randn(shape, generator=seeds.generator(0, name, "base")).mul_(0.02)
    if number:
        draw = seeds.generator(0, name, number)
        delta = torch.randn(shape, generator=draw).mul_(5e-4)
        value += delta.mul_(1 + 9 * (torch.rand(shape, generator=draw) < 0.01))
    return value.to(torch.bfloat16)
