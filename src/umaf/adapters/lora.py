"""LoRA folders in PEFT's format, written through PEFT itself so that the names are PEFT's own."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor

from umaf import __version__
from umaf.adapters.apply import CARD, fill, lora_config, unstack
from umaf.adapters.factors import Factors, weight_of
from umaf.errors import AdapterError
from umaf.files import whole_folder, write_json
from umaf.models import FAMILIES, Model, bare, shape_hash
from umaf.models.quiet import quiet

PAGE = """---
library_name: peft
tags: [lora, umaf]
---
# A LoRA for {target}

It changes {modules} modules and was made by umaf; `umaf.json` tells how, and from what. Load it with
`PeftModel.from_pretrained(model, folder)`; nothing of umaf is needed.
"""


def write_lora(
    folder: str | Path,
    target: Model,
    factors: Factors,
    *,
    provenance: Mapping[str, Any],
    beside: Callable[[Path], object] | None = None,
) -> Path:
    """Writes an update of a target as a PEFT folder, whole or not at all.

    The scaling is one for every reader (alpha equals the rank, module by module), so the folder's
    update is ``B @ A`` and nothing else. Factors of stacked experts are filled up with zeros to one rank.

    Args:
        folder: a path that does not exist yet.
        target: the model the update is for; only its shapes are used.
        factors: per module ``(A [rank, in], B [out, rank])``, with experts in front where stacked.
        provenance: how the update was made; kept in ``umaf.json``, apart from PEFT's own files.
        beside: writes more files into the folder before it takes its name.

    Returns:
        The folder.

    Raises:
        AdapterError: no factors, an unknown module, a wrong shape, or NaN.
        OutputError: the folder exists or cannot be written.
    """
    _check(target, factors)
    about = {"model": target.name, "model_type": target.config.model_type, "head": target.head}
    about["shapes"] = shape_hash(target)
    with whole_folder(folder) as draft, quiet():
        net = _empty(target, lora_config(target, factors))
        fill(target, net, factors)
        net.save_pretrained(str(draft), save_embedding_layers=False)
        _sort_names(draft / "adapter_config.json")
        # PEFT's own page is an empty form with the target's path in it.
        (draft / "README.md").write_text(
            PAGE.format(target=target.name, modules=len(factors)), encoding="utf-8"
        )
        write_json(draft / CARD, {"umaf": __version__, "target": about, "provenance": dict(provenance)})
        if beside is not None:
            beside(draft)
    return Path(folder)


def read_factors(folder: str | Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Reads the update of a PEFT folder back, also one that umaf did not write.

    Args:
        folder: a PEFT LoRA folder.

    Returns:
        Factors by module name; the folder's scaling is multiplied into B.

    Raises:
        AdapterError: not a plain LoRA, or weights that belong to no factor.
    """
    folder = Path(folder)
    if not (folder / "adapter_config.json").is_file():
        raise AdapterError(
            f'The adapter "{folder}" was asked for, but there is no adapter_config.json; check the path.'
        )
    config = cast(LoraConfig, LoraConfig.from_pretrained(str(folder)))
    if config.peft_type != "LORA" or config.use_dora:
        raise AdapterError(f'The adapter "{folder}" is not a plain LoRA; only LoRA factors can be read.')
    try:
        state = load_file(folder / "adapter_model.safetensors")
    except Exception as error:
        raise AdapterError(
            f'The weights of the adapter "{folder}" cannot be read ({error}); copy it again.'
        ) from error
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    for key in sorted(key for key in state if key.endswith(".lora_A.weight")):
        a, b = state.pop(key), state.pop(key.replace(".lora_A.", ".lora_B."))
        name = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        parameter = _parameter(name, config)
        rank = _pattern(config.rank_pattern or {}, parameter or name, config.r)
        alpha = _pattern(config.alpha_pattern or {}, parameter or name, config.lora_alpha)
        scaling = alpha / (rank**0.5 if config.use_rslora else rank)
        if parameter:
            a, b = unstack(a, b, rank)
        factors[parameter or name] = (a, b if scaling == 1 else b * scaling)
    if state:
        raise AdapterError(
            f'The adapter "{folder}" holds "{sorted(state)[0]}", which is no LoRA factor; it cannot be combined.'
        )
    return factors


def _check(target: Model, factors: Factors) -> None:
    if not factors:
        raise AdapterError("An adapter was asked for, but it has no factors; give at least one module.")
    for name, (a, b) in factors.items():
        weight = weight_of(target, name)
        fits = a.shape[-2] == b.shape[-1] and (*b.shape[:-1], a.shape[-1]) == tuple(weight.shape)
        if not fits or a.shape[:-2] != b.shape[:-2]:
            raise AdapterError(
                f'"{name}" of "{target.name}" is {list(weight.shape)}, but its factors are A {list(a.shape)} and '
                f"B {list(b.shape)}; A must end in [rank, in] and B in [out, rank]."
            )
        if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
            raise AdapterError(f'The factors of "{name}" hold NaN or infinity, so no adapter was written.')


def _empty(target: Model, config: LoraConfig) -> PeftModel:
    """The target with the adapter's modules but without memory behind its weights."""
    net = bare(target.net)
    settings = copy.deepcopy(net.config)
    with torch.device("meta"):
        shell = type(net)(settings)
        return get_peft_model(shell, config)


def _sort_names(path: Path) -> None:
    """PEFT writes a set in an order that changes from process to process; equal updates give equal files."""
    config = json.loads(path.read_text(encoding="utf-8"))
    for key in ("target_modules", "target_parameters"):
        config[key] = sorted(config[key]) if config[key] else config[key]
    write_json(path, config)


def _parameter(name: str, config: LoraConfig) -> str | None:
    """The stacked parameter that a module's factors belong to; None for a linear module.

    PEFT nests one wrapper per parameter; the parameter a module declares first is the innermost.
    """
    clean, depth = name.replace(".base_layer", ""), name.count(".base_layer")
    order = [suffix for family in FAMILIES.values() for suffix in family.experts]
    order = list(dict.fromkeys(suffix.rpartition(".")[2] for suffix in order))
    mine = {
        target.rpartition(".")[2]
        for target in config.target_parameters or []
        if clean.endswith(target.rpartition(".")[0])
    }
    nested = [leaf for leaf in reversed(order) if leaf in mine] or sorted(mine, reverse=True)
    return f"{clean}.{nested[depth]}" if nested else None


def _pattern(patterns: Mapping[str, int], name: str, default: int) -> int:
    return next(
        (value for key, value in patterns.items() if name == key or name.endswith(f".{key}")), default
    )
