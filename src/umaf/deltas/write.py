"""LoRA folders in PEFT's format, written without PEFT; `PeftModel.from_pretrained` finds every key it looks for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from umaf.deltas.adapter import WEIGHTS, Target, stack
from umaf.errors import AdapterError
from umaf.files import sha256_file, whole_folder, write_json, write_text

_PAGE = """---
library_name: peft
{base}tags: [lora, umaf]
---
# A LoRA{of}

It changes {modules} modules and was written by umaf; `umaf.json` tells how, and from what. Load it with
`PeftModel.from_pretrained(model, folder)`; nothing of umaf is needed.
{about}"""


def write_adapter(
    folder: str | Path,
    targets: Mapping[str, Target],
    *,
    whole: Mapping[str, Tensor] | None = None,
    base: str = "",
    task: str | None = None,
    conv1d: bool = False,
    record: Mapping[str, Any] | None = None,
    about: str = "",
) -> Path:
    """Write factors as a LoRA folder, whole or not at all.

    The scaling is 1 for every module (alpha equals the rank), so the delta is `B @ A` for every reader. Ranks may
    differ; factors of stacked experts are filled with zeros up to the folder's rank.

    Args:
        folder: a path that does not exist yet.
        targets: by module path, or by parameter path for kind "parameter".
        whole: parameters that PEFT is to replace (modules_to_save), by name; every parameter of a module must be there.
        base: name of the base model.
        task: PEFT's task type, "CAUSAL_LM" for example.
        conv1d: the base keeps its weights as `[in, out]`, as GPT-2 does.
        record: how it was made; kept in `umaf.json`, with a checksum of the weights.
        about: Markdown that its README.md ends with.

    Returns:
        The folder.

    Raises:
        AdapterError: there is nothing to write, or a magnitude.
        OutputError: the folder exists or cannot be written.

    Example:
        >>> import tempfile
        >>> from umaf.deltas import LowRank
        >>> one = Target("linear", LowRank(torch.ones(1, 3), torch.ones(2, 1)))
        >>> sorted(path.name for path in write_adapter(Path(tempfile.mkdtemp()) / "new", {"up": one}).iterdir())
        ['README.md', 'adapter_config.json', 'adapter_model.safetensors', 'umaf.json']
    """
    if not targets:
        raise AdapterError(
            "An adapter was to be written, but it changes nothing; there is no module with factors."
        )
    config = adapter_config(targets, whole=whole, base=base, task=task, conv1d=conv1d)
    with whole_folder(folder) as draft:
        save_file(_state(targets, whole or {}, config), draft / WEIGHTS, metadata={"format": "pt"})
        write_json(draft / "adapter_config.json", config)
        write_json(draft / "umaf.json", {**(record or {}), "shards": {WEIGHTS: sha256_file(draft / WEIGHTS)}})
        write_text(draft / "README.md", page(base, len(targets), about))
    return Path(folder)


def page(base: str, modules: int, about: str = "") -> str:
    """Give the README.md of an adapter.

    Args:
        base: name of the base model; a path is not told.
        modules: how many it changes.
        about: Markdown that it ends with.

    Example:
        >>> page("org/base", 3).splitlines()[5]
        '# A LoRA for org/base'
    """
    known = base and not Path(base).is_absolute()
    return _PAGE.format(
        base=f"base_model: {base}\n" if known else "",
        about=about and f"\n{about}",
        of=f" for {base}" if known else "",
        modules=modules,
    )


def adapter_config(
    targets: Mapping[str, Target],
    *,
    whole: Mapping[str, Tensor] | None = None,
    base: str = "",
    task: str | None = None,
    conv1d: bool = False,
) -> dict[str, Any]:
    """Give PEFT's config for factors: exactly these modules and ranks, and a scaling of 1.

    Example:
        >>> from umaf.deltas import LowRank
        >>> one = Target("linear", LowRank(torch.ones(1, 3), torch.ones(2, 1)))
        >>> adapter_config({"up": one})["target_modules"]
        ['up']
    """
    stacked = {name for name, target in targets.items() if target.delta.a.ndim == 3}
    # Factors of experts are padded to one rank: older versions of PEFT look at no pattern there.
    rank = max(target.delta.rank for name, target in targets.items() if not stacked or name in stacked)
    odd = {
        name: target.delta.rank
        for name, target in sorted(targets.items())
        if name not in stacked and target.delta.rank != rank
    }
    # A pattern fits every name that ends in it; where another does, only a regular expression says which is meant.
    ends = _ends(targets)
    patterns = {f"^{re.escape(name)}" if name in ends else name: rank for name, rank in odd.items()}
    parameters = sorted(name for name, target in targets.items() if target.kind == "parameter")
    return {
        "peft_type": "LORA",
        "task_type": task,
        "base_model_name_or_path": base or None,
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": patterns,
        "alpha_pattern": dict(patterns),
        "target_modules": sorted(name for name, target in targets.items() if target.kind != "parameter"),
        "target_parameters": parameters or None,
        "modules_to_save": sorted({name.rpartition(".")[0] for name in whole or {}}) or None,
        "fan_in_fan_out": conv1d,
        "lora_bias": any(target.bias is not None for target in targets.values()),
        "bias": "none",
        "lora_dropout": 0.0,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
        "inference_mode": True,
    }


def _ends(names: Iterable[str]) -> set[str]:
    """Collect what names end in, after any of their dots."""
    parts = [name.split(".") for name in names]
    return {".".join(one[start:]) for one in parts for start in range(1, len(one))}


def _state(
    targets: Mapping[str, Target], whole: Mapping[str, Tensor], config: Mapping[str, Any]
) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    owners = [name.rpartition(".")[0] for name, target in targets.items() if target.kind == "parameter"]
    for name, target in targets.items():
        if target.magnitude is not None:
            raise AdapterError(
                f"{name} has a magnitude of DoRA, which cannot be written; give plain factors."
            )
        module, kinds = name, ("lora_A.weight", "lora_B.weight")
        delta = target.delta
        if target.kind == "embedding":
            kinds = ("lora_embedding_A", "lora_embedding_B")
        if target.kind == "parameter":
            module, _, leaf = name.rpartition(".")
            # Of two parameters of one module, the one declared first is innermost.
            module += ".base_layer" if owners.count(module) == 2 and leaf == "gate_up_proj" else ""
        a, b = delta.a, delta.b
        if a.ndim == 3:
            a, b = stack(delta.padded(config["r"]))
        state[f"base_model.model.{module}.{kinds[0]}"] = a.contiguous()
        state[f"base_model.model.{module}.{kinds[1]}"] = b.contiguous()
        if config["lora_bias"] and target.kind == "linear":
            bias = target.bias if target.bias is not None else torch.zeros(delta.shape[-2])
            state[f"base_model.model.{module}.lora_B.bias"] = bias.contiguous()
    for name, tensor in whole.items():
        state[f"base_model.model.{name}"] = tensor.contiguous()
    # save_file wants tensors that share no memory.
    return {key: tensor.clone() for key, tensor in state.items()}
