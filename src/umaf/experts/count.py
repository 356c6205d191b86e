"""How many numbers an expert has, beside a LoRA on the same weights; from a model, or from its config alone.

SVF:   sum over weights of min(in, out)
LoRA:  sum over weights of rank (in + out)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
    PreTrainedConfig,
)

from umaf.adapters import weight_of
from umaf.errors import ModelError
from umaf.experts.decompose import svf_modules
from umaf.models import Model, family_of
from umaf.models.quiet import quiet


@dataclass(frozen=True)
class Count:
    """Trained parameters of two kinds of adapters on the same weights.

    Attributes:
        modules: weights that are adapted.
        svf: multipliers of singular values.
        lora: entries of both factors.
        rank: of the LoRA.
        weights: entries of the weights themselves.
    """

    modules: int
    svf: int
    lora: int
    rank: int
    weights: int

    @property
    def share(self) -> float:
        """SVF's parameters as a share of LoRA's."""
        return self.svf / self.lora


def count(model: Model, wanted: Sequence[str] | None = None, *, rank: int = 16) -> Count:
    """Count an expert's parameters beside a LoRA's.

    Args:
        model: an opened model, or what `from_config` gives.
        wanted: parts of names of modules, as `svf_modules` takes them.
        rank: of the LoRA.

    Raises:
        ExpertError: the model has no such modules.

    Example:
        >>> from transformers import LlamaConfig
        >>> size = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
        >>> llama_3_8b = from_config(LlamaConfig(**size, num_key_value_heads=8, vocab_size=128256))
        >>> found = count(llama_3_8b, ["mlp"])
        >>> found.svf, found.lora, round(found.share, 4)
        (393216, 28311552, 0.0139)
    """
    names = svf_modules(model, wanted)
    shapes = [tuple(weight_of(model, name).shape) for name in names]
    stacks = [math.prod(shape[:-2]) for shape in shapes]
    return Count(
        modules=len(names),
        svf=sum(stack * min(shape[-2:]) for stack, shape in zip(stacks, shapes, strict=True)),
        lora=sum(stack * rank * sum(shape[-2:]) for stack, shape in zip(stacks, shapes, strict=True)),
        rank=rank,
        weights=sum(math.prod(shape) for shape in shapes),
    )


def from_config(config: PreTrainedConfig | str | Path) -> Model:
    """Build a model of which only names and shapes exist; nothing can be run on it.

    Args:
        config: a config of ``transformers``, or where one is: a folder, a ``config.json``, a hub id.

    Returns:
        A model whose weights lie on torch's "meta" device, without a tokenizer.

    Raises:
        ModelError: there is no config, or no model for it.
    """
    known: Any = config
    try:
        with quiet():
            if not isinstance(config, PreTrainedConfig):
                known = AutoConfig.from_pretrained(str(config))
            with torch.device("meta"):
                net = _shell(known)
    except (OSError, ValueError) as problem:
        why = " ".join(str(problem).split())[:120].rstrip(".")
        raise ModelError(
            f"Parameters of {config} were to be counted, but it gives no model ({why})."
        ) from None
    return Model(net.eval(), None, str(known.model_type), family_of(net), "base")


def _shell(config: Any) -> Any:
    """The first class that the config fits; names of weights differ in front only."""
    for auto in (AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForImageTextToText):
        try:
            return auto.from_config(config)
        except ValueError:
            continue
    return AutoModel.from_config(config)
