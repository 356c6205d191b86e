"""Checkpoints that are headers only, for tests of the planner."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "U8": 1, "F8_E4M3": 1}


@dataclass
class Header:
    """What the planner reads of a checkpoint."""

    name: str
    entries: dict
    config: dict | None = None
    folder: Path = Path("nowhere")
    files: tuple = (Path("model.safetensors"),)


@dataclass
class Shelf:
    """Checkpoints by path; `open` counts what was opened."""

    models: dict = field(default_factory=dict)
    opened: list = field(default_factory=list)

    def open(self, ref):
        self.opened.append(str(ref))
        return self.models[ref.path]

    def add(self, name, tensors, config=None, dtype="BF16", **more):
        entries, start = {}, 0
        for key, shape in tensors.items():
            shape, kind = shape if isinstance(shape, tuple) and isinstance(shape[-1], str) else (shape, dtype)
            size = math.prod(shape) * BYTES[kind]
            entries[key] = SimpleNamespace(
                name=key,
                dtype=kind,
                shape=tuple(shape),
                file=Path("model.safetensors"),
                start=start,
                size=size,
                numel=math.prod(shape),
            )
            start += size
        more.setdefault("files", (Path(name) / "model.safetensors",))
        self.models[name] = Header(name, entries, config, **more)
        return self


def llama(layers=5, hidden=8, vocab=32, tied=False):
    """Shapes of a small LLaMA, in the order of its file."""
    shapes = {"model.embed_tokens.weight": (vocab, hidden)}
    for layer in range(layers):
        lead = f"model.layers.{layer}."
        shapes[lead + "input_layernorm.weight"] = (hidden,)
        shapes[lead + "mlp.down_proj.weight"] = (hidden, 2 * hidden)
        shapes[lead + "mlp.gate_proj.weight"] = (2 * hidden, hidden)
        shapes[lead + "mlp.up_proj.weight"] = (2 * hidden, hidden)
        shapes[lead + "post_attention_layernorm.weight"] = (hidden,)
        for part in "kqvo":
            shapes[lead + f"self_attn.{part}_proj.weight"] = (hidden, hidden)
    shapes["model.norm.weight"] = (hidden,)
    if not tied:
        shapes["lm_head.weight"] = (vocab, hidden)
    return shapes


def llama_config(layers=5, **more):
    """The config that goes with `llama`."""
    config = {
        "model_type": "llama",
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "hidden_size": 8,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
    }
    return {**config, **more}


def shelf(*names, layers=5, **more):
    """Several small LLaMAs of one size."""
    found = Shelf()
    for name in names:
        found.add(name, llama(layers), llama_config(layers), **more)
    return found
