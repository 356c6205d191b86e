"""LoRA folders in PEFT's format, written through PEFT itself so that the names are PEFT's own."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from umaf import __version__
from umaf.adapters.factors import Factors, weight_of
from umaf.errors import AdapterError
from umaf.files import whole_folder, write_json
from umaf.models import FAMILIES, Model, bare, shape_hash
from umaf.models.quiet import quiet

_TASKS = {"lm": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM", "base": "FEATURE_EXTRACTION"}
_CARD = "umaf.json"


def write_lora(folder: str | Path, target: Model, factors: Factors, *, provenance: Mapping[str, Any]) -> Path:
    """Writes an update of a target as a PEFT folder, whole or not at all.

    The scaling is one for every reader (alpha equals the rank, module by module), so the folder's
    update is ``B @ A`` and nothing else. Factors of stacked experts are filled up with zeros to one rank.

    Args:
        folder: a path that does not exist yet.
        target: the model the update is for; only its shapes are used.
        factors: per module ``(A [rank, in], B [out, rank])``, with experts in front where stacked.
        provenance: how the update was made; kept in ``umaf.json``, apart from PEFT's own files.

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
        _fill(target, net, factors)
        net.save_pretrained(str(draft), save_embedding_layers=False)
        _sort_names(draft / "adapter_config.json")
        write_json(draft / _CARD, {"umaf": __version__, "target": about, "provenance": dict(provenance)})
    return Path(folder)


def lora_config(target: Model, factors: Factors) -> LoraConfig:
    """PEFT's configuration for an update: exactly these modules and ranks, scaling one.

    Args:
        target: the model.
        factors: the update.

    Returns:
        The configuration.
    """
    stacked = [name for name in factors if is_stacked(target, name)]
    # PEFT has rank patterns for modules only, so stacked experts all take the common rank.
    common = max(factors[name][0].shape[-2] for name in stacked or factors)
    odd = {
        name: a.shape[-2] for name, (a, _) in factors.items() if name not in stacked and a.shape[-2] != common
    }
    return LoraConfig(
        r=common,
        lora_alpha=common,
        rank_pattern=dict(odd),
        alpha_pattern=dict(odd),
        target_modules=[name for name in factors if name not in stacked],
        target_parameters=stacked or None,
        fan_in_fan_out=target.family.conv1d,
        task_type=_TASKS.get(target.head),
        lora_dropout=0.0,
        use_rslora=False,
    )


def load_adapter(model: Model, folder: str | Path, *, trainable: bool = False) -> Model:
    """Puts an adapter on a model; the model's own network is left as it is.

    PEFT works in place, so the adapter goes on a copy of the modules that shares every weight.

    Args:
        model: the adapter's base, with the head the adapter was made for.
        folder: a PEFT folder.
        trainable: let the factors receive gradients.

    Returns:
        The model with a ``PeftModel`` as its network.

    Raises:
        AdapterError: no adapter there, made for other shapes, or it does not fit.
    """
    folder = Path(folder)
    if not (folder / "adapter_config.json").is_file():
        raise AdapterError(
            f'The adapter "{folder}" was asked for, but there is no adapter_config.json; check the path.'
        )
    card = folder / _CARD
    if card.is_file():
        made = json.loads(card.read_text(encoding="utf-8"))["target"]
        if made["shapes"] != shape_hash(model):
            raise AdapterError(
                f'The adapter "{folder}" was made for {made["model"]} ({made["model_type"]}, head {made["head"]}), '
                f'which has other shapes than "{model.name}" ({model.config.model_type}, head {model.head}).'
            )
    net = sharing_copy(bare(model.net))
    with quiet():
        try:
            wrapped = PeftModel.from_pretrained(net, str(folder), is_trainable=trainable)
        except Exception as error:
            why = " ".join(str(error).split())[:200].rstrip(".")
            raise AdapterError(f'The adapter "{folder}" does not fit "{model.name}" ({why}).') from error
    _check_keys(model, wrapped, folder)
    return replace(model, net=wrapped.eval())


def sharing_copy(net: nn.Module) -> Any:
    """Copies a network's modules but not its weights: both read the same memory.

    Args:
        net: any network.

    Returns:
        A network whose parameters and buffers are the given one's own tensors.
    """
    tensors = [*net.parameters(), *net.buffers()]
    return copy.deepcopy(net, {id(tensor): tensor for tensor in tensors})


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
            a, b = _unstack(a, b, rank)
        factors[parameter or name] = (a, b if scaling == 1 else b * scaling)
    if state:
        raise AdapterError(
            f'The adapter "{folder}" holds "{sorted(state)[0]}", which is no LoRA factor; it cannot be combined.'
        )
    return factors


def is_stacked(model: Model, name: str) -> bool:
    """Whether a name is a 3-D parameter with one matrix per expert."""
    return name.endswith(tuple(f".{suffix}" for suffix in model.family.experts))


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


def _fill(target: Model, net: PeftModel, factors: Factors) -> None:
    left = dict(factors)
    for path, module in bare(net).named_modules():
        if not isinstance(module, LoraLayer):
            continue
        parameter = getattr(module, "parameter_name", "weight")
        name = path.replace(".base_layer", "")
        name = name if parameter == "weight" else f"{name}.{parameter}"
        a, b = left.pop(name)
        if is_stacked(target, name):
            a, b = _stack(a, b, module.r["default"])
        for part, value in ((module.lora_A, a), (module.lora_B, b)):
            linear: Any = part["default"]
            if linear.weight.shape != value.shape:
                raise AdapterError(
                    f'PEFT expects {list(linear.weight.shape)} for "{name}", not {list(value.shape)}.'
                )
            linear.weight = nn.Parameter(value.detach().float().cpu().contiguous(), requires_grad=False)
    if left:
        raise AdapterError(f'PEFT cannot adapt "{next(iter(left))}" of "{target.name}"; leave it out.')


def _sort_names(path: Path) -> None:
    """PEFT writes a set in an order that changes from process to process; equal updates give equal files."""
    config = json.loads(path.read_text(encoding="utf-8"))
    for key in ("target_modules", "target_parameters"):
        config[key] = sorted(config[key]) if config[key] else config[key]
    write_json(path, config)


def _stack(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Experts' factors as PEFT's matrices: A by expert then rank, B by rank then expert; zeros fill the rank."""
    more = rank - a.shape[-2]
    a, b = functional.pad(a, (0, 0, 0, more)), functional.pad(b, (0, more))
    return a.reshape(-1, a.shape[-1]), b.permute(1, 2, 0).reshape(b.shape[1], -1)


def _unstack(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The inverse of :func:`_stack`."""
    return a.reshape(-1, rank, a.shape[-1]), b.reshape(b.shape[0], rank, -1).permute(2, 0, 1).contiguous()


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


def _check_keys(model: Model, net: PeftModel, folder: Path) -> None:
    """PEFT only warns of keys that are missing or left over; here they stop the run."""
    saved = (
        set(load_file(folder / "adapter_model.safetensors"))
        if (folder / "adapter_model.safetensors").is_file()
        else None
    )
    if saved is None:
        raise AdapterError(f'The adapter "{folder}" has no adapter_model.safetensors; copy it again.')
    have = {key.replace(".default.", ".") for key in net.state_dict() if "lora_" in key}
    lora = {key for key in saved if "lora_" in key}
    if lora != have:
        first = sorted(lora ^ have)[0]
        raise AdapterError(
            f'The adapter "{folder}" does not fit "{model.name}": "{first}" is only in one of them.'
        )
