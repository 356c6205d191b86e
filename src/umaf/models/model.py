"""The value that stands for an opened model, and the few questions asked about every model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from umaf.models.architectures import Family

Head = Literal["lm", "masked", "seq2seq", "classifier", "base"]


@dataclass(frozen=True)
class Model:
    """A model in evaluation mode with its tokenizer.

    Attributes:
        net: the network, or a ``PeftModel`` around it.
        tokenizer: its fast tokenizer, with a padding token.
        name: what the user called it.
        family: its row of the architecture table.
        head: what it answers with: the next token, a masked token, a decoder, classes, or nothing.
    """

    net: Any
    tokenizer: Any
    name: str
    family: Family
    head: Head

    @property
    def kind(self) -> str:
        """How the model reads: decoder, encoder or encoder-decoder."""
        return self.family.kind

    @property
    def config(self) -> Any:
        """The configuration of the network."""
        return bare(self.net).config

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.net.parameters()).device

    @property
    def parameters(self) -> int:
        """Number of parameters; tied ones count once."""
        return sum(parameter.numel() for parameter in bare(self.net).parameters())

    @property
    def layers(self) -> int:
        """Number of layers in the stack that reads the text."""
        return len(layer_list(self))

    @property
    def width(self) -> int:
        """Size of the hidden states."""
        return int(self.config.hidden_size)

    @property
    def window(self) -> int | None:
        """Most tokens the model reads at once; None when unlimited."""
        if self.family.window is None:
            return None
        positions = getattr(self.config, self.family.window, None)
        return None if positions is None else int(positions) - self.family.window_offset

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes of a classifier head in the order of its logits; empty for other heads."""
        if self.head != "classifier":
            return ()
        return tuple(str(self.config.id2label[i]) for i in range(self.config.num_labels))


def bare(net: Any) -> PreTrainedModel:
    """Takes a ``PeftModel`` off; the adapter's layers stay inside the network it returns.

    Args:
        net: a network of ``transformers``, or a ``PeftModel`` around one.

    Returns:
        The network, on which module names are those of the checkpoint.
    """
    return cast(PreTrainedModel, net.get_base_model()) if isinstance(net, PeftModel) else net


def layer_list(model: Model, stack: int = 0) -> nn.ModuleList:
    """The layers of one stack, for hooks.

    Args:
        model: any opened model.
        stack: 0 for the stack that reads the text, 1 for the decoder of an encoder-decoder.

    Returns:
        The ``ModuleList``; each layer gives hidden states ``[text, token, hidden]``.
    """
    # open_model has checked that this is a list of layers.
    return cast(nn.ModuleList, bare(model.net).base_model.get_submodule(model.family.layers[stack]))


def weights_hash(model: Model) -> str:
    """Hashes every weight, one tensor at a time, the same in every process and on every device.

    Args:
        model: an opened model; an adapter around it counts too.

    Returns:
        64 hexadecimal digits (sha256 of names, shapes, types and bytes in order of the names).
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(model.net.named_parameters()):
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        flat = parameter.detach().to("cpu").contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def shape_hash(model: Model) -> str:
    """Hashes the names and shapes of the bare model's parameters: what an adapter has to fit.

    Args:
        model: an opened model; adapters around it do not count.

    Returns:
        64 hexadecimal digits, equal for two checkpoints of one architecture and size.
    """
    shapes = {
        name.replace(".base_layer", ""): tuple(parameter.shape)
        for name, parameter in bare(model.net).named_parameters()
        if "lora_" not in name
    }
    return hashlib.sha256(repr(sorted(shapes.items())).encode()).hexdigest()
