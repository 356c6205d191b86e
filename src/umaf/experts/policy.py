"""What is trained: an expert's multipliers, a LoRA or IA3, as one kind of thing for every objective."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from peft import IA3Config, get_peft_model
from torch import Tensor

from umaf.adapters import attach as attach_lora
from umaf.adapters.apply import sharing_copy
from umaf.experts.attach import attached
from umaf.experts.bound import bounded
from umaf.experts.decompose import Factored
from umaf.generation.train import nothing
from umaf.models import Model, bare
from umaf.models.quiet import quiet


@dataclass(frozen=True)
class Policy:
    """A model with parameters that receive gradients while everything else stays.

    Attributes:
        model: what is asked.
        parameters: float32 leaves by name; they are changed in place.
        active: inside this block the model answers with the parameters.
        resting: inside this block it answers as the base.
    """

    model: Model
    parameters: Mapping[str, Tensor]
    active: Callable[[], AbstractContextManager[object]]
    resting: Callable[[], AbstractContextManager[object]]

    @property
    def count(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self.parameters.values())


def svf(model: Model, factored: Mapping[str, Factored]) -> Policy:
    """Train the multipliers of singular values, from the identity (p = 0, z = 1).

    Gradients go straight into p through y = Wx + U((s * (z - 1)) * (Vh x)), computed as U((s * z) * (Vh x)), which
    multiplies less; no gradient of a full weight is made.
    """
    raw = {
        name: torch.zeros_like(one.s, dtype=torch.float32, device=model.device).requires_grad_(True)
        for name, one in factored.items()
    }

    @contextmanager
    def active() -> Iterator[None]:
        with frozen(model), attached(model, factored, multipliers(raw), form="whole"):
            yield

    return Policy(model, raw, active, nullcontext)


@contextmanager
def frozen(model: Model) -> Iterator[None]:
    """Ask for no gradient of the model's own weights inside this block; an opened model's weights ask for them."""
    asking = [weight for weight in model.net.parameters() if weight.requires_grad]
    for weight in asking:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in asking:
            weight.requires_grad_(True)


def multipliers(raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give z from the parameters of `svf`."""
    return {name: bounded(value) for name, value in raw.items()}


def lora(model: Model, *, rank: int, seed: int) -> Policy:
    """Train a LoRA on every linear module, fresh from its seed, as the comparison."""
    return _of_peft(attach_lora(model, nothing(model, rank, seed), trainable=True))


def ia3(
    model: Model, *, attention: Sequence[str] = ("k_proj", "v_proj"), inner: Sequence[str] = ("down_proj",)
) -> Policy:
    """Train IA3 through PEFT: keys, values and the inputs of the second feed-forward matrix, scaled.

    Liu et al., 2022, section 3.3.
    """
    net = sharing_copy(bare(model.net))
    config = IA3Config(
        target_modules=[*attention, *inner],
        feedforward_modules=list(inner),
        task_type="CAUSAL_LM" if model.head == "lm" else "SEQ_2_SEQ_LM",
    )
    with quiet():
        wrapped = get_peft_model(net, config)
    return _of_peft(replace(model, net=wrapped.eval()))


def _of_peft(model: Model) -> Policy:
    parameters = {name: p for name, p in model.net.named_parameters() if p.requires_grad}
    return Policy(model, parameters, nullcontext, model.net.disable_adapter)
