"""Is this model the base of that one?"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from umaf.errors import ModelError
from umaf.models import Model, bare

# Fine-tuned matrices keep a cosine above 0.9 with those of their base, and still above 0.5 after
# long training of small models; those of two separate trainings are near 0.
ALIKE = 0.3


def check_base(model: Model, base: Model) -> None:
    """Stop where `base` cannot be the model that `model` was fine-tuned from.

    Args:
        model: the fine-tuned model.
        base: the model it is said to come from.

    Raises:
        ModelError: another architecture, width, number of layers or vocabulary, or weights that have
            nothing in common.
    """
    facts = {
        "architecture": (str(model.config.model_type), str(base.config.model_type)),
        "width": (model.width, base.width),
        "number of layers": (model.layers, base.layers),
        "vocabulary": (int(model.config.vocab_size), int(base.config.vocab_size)),
    }
    for what, (own, other) in facts.items():
        if own != other:
            raise ModelError(
                f"{base.name} was given as the base of {model.name}, but its {what} is {other} and not {own}; give "
                f"the model that {model.name} was fine-tuned from, or none."
            )
    cosine = likeness(model, base)
    # Written so that NaN weights pass here: the pass through the model names their layer.
    if cosine < ALIKE:
        raise ModelError(
            f"{base.name} was given as the base of {model.name}, but their weights have nothing in common (median "
            f"cosine {cosine:.2f}, and a fine-tuned model keeps more than {ALIKE}); give the model that {model.name} "
            f"was fine-tuned from, or none."
        )


def likeness(model: Model, base: Model) -> float:
    """Compare the weights of two models of one shape.

    Args:
        model: a model.
        base: another with the same parameter names below the head.

    Returns:
        The median over shared matrices of the cosine between them; 0 where they share none.
    """
    own, other = _matrices(model), _matrices(base)
    shared = [name for name in own if name in other and own[name].shape == other[name].shape]
    cosines = [_cosine(own[name], other[name]) for name in shared]
    return float(torch.tensor(cosines).median()) if cosines else 0.0


def _matrices(model: Model) -> dict[str, Tensor]:
    """Return the matrices below the head by their names in a plain checkpoint; adapters left out."""
    named = bare(model.net).base_model.named_parameters()
    return {
        name.replace(".base_layer", ""): parameter.detach()
        for name, parameter in named
        if parameter.ndim >= 2 and "lora_" not in name
    }


def _cosine(left: Tensor, right: Tensor) -> float:
    x, y = left.float().flatten(), right.float().to(left.device).flatten()
    scale = math.sqrt(float(x @ x)) * math.sqrt(float(y @ y))
    return float(x @ y) / scale if scale > 0 else 1.0
