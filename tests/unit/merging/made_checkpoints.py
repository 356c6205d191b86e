"""Small checkpoints for tests of merging: a base and experts, in shards, with a config."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

CONFIG = {
    "model_type": "llama",
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 40,
}
VECTORS = ("input_layernorm", "post_attention_layernorm")


def state(seed: int, *, vocabulary: int = 40, width: int = 8, long: int = 0) -> dict[str, torch.Tensor]:
    """Make the tensors of a model of two layers; `long` adds one of that many entries."""
    draw = torch.Generator().manual_seed(seed)
    shapes = {"model.embed_tokens.weight": (vocabulary, width), "lm_head.weight": (vocabulary, width)}
    for layer in range(2):
        head = f"model.layers.{layer}."
        shapes |= {f"{head}self_attn.{one}_proj.weight": (width, width) for one in "qkvo"}
        shapes |= {
            f"{head}mlp.up_proj.weight": (3 * width, width),
            f"{head}mlp.down_proj.weight": (width, 3 * width),
        }
        shapes |= {f"{head}{one}.weight": (width,) for one in VECTORS}
    if long:
        shapes["model.layers.0.mlp.gate_proj.weight"] = (long // width, width)
    return {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}


def write(folder: Path, tensors: dict[str, torch.Tensor], *, shards: int = 2, **config: object) -> Path:
    """Write a checkpoint folder."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(tensors)
    size = -(-len(names) // shards)
    places = {}
    for number in range(shards):
        part = names[number * size : (number + 1) * size]
        file = "model.safetensors" if shards == 1 else f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        save_file(
            {name: tensors[name].contiguous() for name in part}, folder / file, metadata={"format": "pt"}
        )
        places |= dict.fromkeys(part, file)
    if shards > 1:
        index = {"metadata": {}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    return folder


def family(root: Path, *, experts: int = 3, dtype: torch.dtype = torch.bfloat16, **sizes: int) -> list[Path]:
    """Write a base and experts near it; the base comes first."""
    base = state(0, **sizes)
    folders = [write(root / "base", {name: one.to(dtype) for name, one in base.items()})]
    for number in range(1, experts + 1):
        noise = state(number, **sizes)
        near = {name: (one + 0.1 * noise[name]).to(dtype) for name, one in base.items()}
        folders.append(write(root / f"expert-{number}", near))
    return folders


def read(folder: Path) -> dict[str, torch.Tensor]:
    """Read all tensors of a folder."""
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def recipe(folders: list[Path], method: str, **keys: object) -> dict[str, object]:
    """Write a recipe over the experts of a family."""
    return {
        "umaf": 1,
        "method": method,
        "base": str(folders[0]),
        "models": [str(folder) for folder in folders[1:]],
        **keys,
    }
