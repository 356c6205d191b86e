"""What an adapter's config says of its numbers: scalings by module, and what is refused because it changes the rule."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from umaf.errors import AdapterError

_HANDLED = (
    "peft_type r lora_alpha rank_pattern alpha_pattern use_rslora use_dora lora_bias bias modules_to_save "
    "target_parameters trainable_token_indices ensure_weight_tying fan_in_fan_out init_lora_weights"
)
_HARMLESS = (
    "task_type auto_mapping peft_version base_model_name_or_path revision inference_mode target_modules "
    "exclude_modules lora_dropout layers_to_transform layers_pattern megatron_config megatron_core loftq_config "
    "eva_config corda_config lora_ga_config qalora_group_size runtime_config arrow_config"
)
_KNOWN = frozenset(f"{_HANDLED} {_HARMLESS}".split())
_CHANGES_BASE = ("pissa", "olora", "corda", "lora_ga", "loftq")
_STACKED = ("gate_up_proj", "down_proj")  # in the order in which mixture models declare them


def read_config(folder: Path) -> dict[str, Any]:
    """Read `adapter_config.json`, and refuse what cannot be handled exactly.

    Raises:
        AdapterError: there is none, it is no LoRA's, or it asks for what changes the rule of a LoRA.
    """
    path = folder / "adapter_config.json"
    if not path.is_file():
        nested = [one.parent.name for one in sorted(folder.glob("*/adapter_config.json"))]
        hint = f"name its subfolder {nested[0]}" if nested else "check the path"
        raise AdapterError(
            f'The adapter "{folder}" was asked for, but it has no adapter_config.json; {hint}.'
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind = str(config["peft_type"]).rpartition(".")[2]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise AdapterError(
            f"{path} cannot be read as the config of an adapter ({problem}); copy it again."
        ) from None
    if kind != "LORA":
        raise AdapterError(
            f'The adapter "{folder}" is of the type {kind}; only LORA can be read, so convert it first.'
        )
    _refuse(config, folder)
    return config


def _refuse(config: Mapping[str, Any], folder: Path) -> None:
    odd = sorted(key for key, value in config.items() if value and key not in _KNOWN)
    if odd:
        raise AdapterError(
            f'The adapter "{folder}" sets {odd[0]}, which changes what its factors mean in a way that is not handled; '
            "merge it into its base with PEFT first."
        )
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        raise AdapterError(
            f'The adapter "{folder}" was started by {start}, which changes the base itself; save it with '
            "path_initial_model_for_weight_conversion, which makes it a plain LoRA."
        )


def scaling_of(name: str, rank: int, config: Mapping[str, Any]) -> float:
    """Give the factor on `B @ A` of a module, as PEFT finds it.

    Args:
        name: of the module or parameter, in full.
        rank: of its factors.
        config: of the adapter.

    Example:
        >>> settings = {"r": 4, "lora_alpha": 8, "alpha_pattern": {"q_proj": 16}, "use_rslora": True}
        >>> scaling_of("layers.0.q_proj", 4, settings), scaling_of("layers.0.v_proj", 4, settings)
        (8.0, 4.0)
    """
    alpha = _pattern(config.get("alpha_pattern"), name, config.get("lora_alpha", 8))
    return float(alpha) / (rank**0.5 if config.get("use_rslora") else rank)


def rank_for(name: str, config: Mapping[str, Any]) -> int:
    """Give the rank of a module by the config.

    Example:
        >>> rank_for("layers.0.q_proj", {"r": 4, "rank_pattern": {"layers.0.q_proj": 2}})
        2
    """
    return int(_pattern(config.get("rank_pattern"), name, config.get("r", 8)))


def _pattern(patterns: Mapping[str, Any] | None, name: str, default: Any) -> Any:
    """Take the first pattern that fits the end of a name, as PEFT does."""
    for key, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({key})$", name):
            return value
    return default


def parameter_of(module: str, config: Mapping[str, Any], folder: Path) -> str | None:
    """Find the parameter that the factors stored under a module belong to; None where the module is a layer.

    PEFT puts one wrapper around another where several parameters of one module are targets; the one that the module
    declares first is innermost, with the most `.base_layer` in its name.

    Raises:
        AdapterError: several parameters, whose order cannot be known.

    Example:
        >>> two = {"target_parameters": ["experts.gate_up_proj", "experts.down_proj"]}
        >>> parameter_of("layers.0.experts.base_layer", two, Path("x"))
        'layers.0.experts.gate_up_proj'
    """
    depth, clean = module.count(".base_layer"), module.replace(".base_layer", "")
    leaves = set()
    for target in config.get("target_parameters") or []:
        owner, _, leaf = target.rpartition(".")
        # A target without a module fits any; only one of stacked experts can be meant.
        mine = clean == owner or clean.endswith(f".{owner}") if owner else clean.endswith("experts")
        leaves |= {leaf} if mine else set()
    if not leaves:
        return None
    order = [leaf for leaf in reversed(_STACKED) if leaf in leaves] if len(leaves) > 1 else sorted(leaves)
    if len(order) != len(leaves) or depth >= len(order):
        raise AdapterError(
            f'The adapter "{folder}" has factors for the parameters {", ".join(sorted(leaves))} of {clean}, and the '
            "order in which PEFT nests them is not known; merge it into its base with PEFT first."
        )
    return f"{clean}.{order[depth]}"
