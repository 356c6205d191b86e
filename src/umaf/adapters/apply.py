"""Adapters on a model: made from factors or from a folder, and read back."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from umaf.adapters.factors import Factors
from umaf.errors import AdapterError
from umaf.models import Model, bare, shape_hash
from umaf.models.quiet import quiet

CARD = "umaf.json"
_TASKS = {"lm": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM", "base": "FEATURE_EXTRACTION"}


def attach(model: Model, factors: Factors, *, trainable: bool = False) -> Model:
    """Puts an update on a model without a folder; the model's own network is left as it is.

    Args:
        model: the target, without an adapter.
        factors: the update, as :func:`umaf.adapters.write_lora` takes it.
        trainable: let the factors, and nothing else, receive gradients.

    Returns:
        The model with a ``PeftModel`` as its network, sharing every weight with the given one.

    Raises:
        AdapterError: the model carries an adapter already, or PEFT cannot adapt a module.
    """
    net = sharing_copy(_plain(model))
    with quiet():
        wrapped = get_peft_model(net, lora_config(model, factors))
    fill(model, wrapped, factors, trainable=trainable)
    return replace(model, net=wrapped.eval())


def factors_of(model: Model) -> dict[str, tuple[Tensor, Tensor]]:
    """The update a model carries, for example after training it.

    Args:
        model: what :func:`attach` or :func:`load_adapter` gave.

    Returns:
        Copies of the factors, on the CPU, with the scaling multiplied into B.

    Raises:
        AdapterError: the model carries no adapter.
    """
    found = {}
    for name, module in _lora_layers(model.net):
        a, b = (part["default"].weight.detach().cpu().clone() for part in (module.lora_A, module.lora_B))
        if is_stacked(model, name):
            a, b = unstack(a, b, module.r["default"])
        scaling = module.scaling["default"]
        found[name] = (a, b if scaling == 1 else b * scaling)
    if not found:
        raise AdapterError(
            f'"{model.name}" carries no adapter, so there are no factors to read; attach one first.'
        )
    return found


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
    card = folder / CARD
    if card.is_file():
        made = json.loads(card.read_text(encoding="utf-8"))["target"]
        if made["shapes"] != shape_hash(model):
            raise AdapterError(
                f'The adapter "{folder}" was made for {made["model"]} ({made["model_type"]}, head {made["head"]}), '
                f'which has other shapes than "{model.name}" ({model.config.model_type}, head {model.head}).'
            )
    net = sharing_copy(_plain(model))
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
    # New Parameter objects on the same memory: PEFT freezes the ones it finds, and the given network's
    # own must stay as they are.
    memo: dict[int, Any] = {id(buffer): buffer for buffer in net.buffers()}
    for own in net.parameters():
        memo[id(own)] = nn.Parameter(own.detach(), requires_grad=own.requires_grad)
    return copy.deepcopy(net, memo)


def is_stacked(model: Model, name: str) -> bool:
    """Whether a name is a 3-D parameter with one matrix per expert."""
    return name.endswith(tuple(f".{suffix}" for suffix in model.family.experts))


def _plain(model: Model) -> nn.Module:
    if isinstance(model.net, PeftModel):
        raise AdapterError(
            f'"{model.name}" carries an adapter already; combine the factors of both, or start from the bare model.'
        )
    return bare(model.net)


def _lora_layers(net: Any) -> Iterator[tuple[str, Any]]:
    """PEFT's layers with the names their factors have in umaf."""
    for path, module in bare(net).named_modules():
        if isinstance(module, LoraLayer):
            name, parameter = path.replace(".base_layer", ""), getattr(module, "parameter_name", "weight")
            yield (name if parameter == "weight" else f"{name}.{parameter}"), module


def fill(model: Model, net: PeftModel, factors: Factors, *, trainable: bool = False) -> None:
    """Writes factors into the layers PEFT made for them.

    Raises:
        AdapterError: PEFT made no layer for a factor, or one of another shape.
    """
    left, device = dict(factors), net.device if net.device.type != "meta" else "cpu"
    for name, module in _lora_layers(net):
        a, b = left.pop(name)
        if is_stacked(model, name):
            a, b = stack(a, b, module.r["default"])
        for part, value in ((module.lora_A, a), (module.lora_B, b)):
            linear: Any = part["default"]
            if linear.weight.shape != value.shape:
                raise AdapterError(
                    f'PEFT expects {list(linear.weight.shape)} for "{name}", not {list(value.shape)}.'
                )
            weight = value.detach().to(device, torch.float32, copy=True).contiguous()
            linear.weight = nn.Parameter(weight, requires_grad=trainable)
    if left:
        raise AdapterError(f'PEFT cannot adapt "{next(iter(left))}" of "{model.name}"; leave it out.')


def stack(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Experts' factors as PEFT's matrices: A by expert then rank, B by rank then expert; zeros fill the rank."""
    more = rank - a.shape[-2]
    a, b = functional.pad(a, (0, 0, 0, more)), functional.pad(b, (0, more))
    return a.reshape(-1, a.shape[-1]), b.permute(1, 2, 0).reshape(b.shape[1], -1)


def unstack(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The inverse of :func:`stack`."""
    return a.reshape(-1, rank, a.shape[-1]), b.reshape(b.shape[0], rank, -1).permute(2, 0, 1).contiguous()


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
