"""Residual-shift regression: what fine-tuning did to the source's hidden states, redone in the target.

At tokens that have read the same characters, the shift of an expert's residual stream, ``D = H_source - H_base``, is
carried into the target's space by ``P``, the ridge map from the base's stream to the target's. The goal of a layer is
``H_target + D P``; layer by layer, on the target as adapted so far, the update of the layer's writer is the ridge
regression of what is missing on the writer's inputs, cut to a rank where its inputs are. No label and no gradient.
Where the two models arrange texts alike it recovers the update; where they do not, little arrives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn

from umaf import tensors
from umaf.activations import depth_layers
from umaf.adapters import cores, lora_modules
from umaf.errors import ModelError
from umaf.generation.places import Places, pair, read, run
from umaf.generation.watch import watched
from umaf.models import Model, bare, layer_list


def residual_shift(
    source: Model,
    base: Model,
    target: Model,
    probes: Sequence[str],
    *,
    cue: str | None = None,
    rank: int = 8,
    ridge: float = 1e-2,
    truncate: bool = False,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Make an update of the target's writers that shifts its hidden states as the source's were shifted.

    The writer of a layer is the last linear module that runs in it: the MLP's down projection, or the
    attention's output where the MLP is a mixture of experts. Layers meet at the same share of depth. Of
    an encoder-decoder the encoder is read and adapted.

    Args:
        source: the expert.
        base: the model it was fine-tuned from.
        target: the model to adapt.
        probes: texts on which the capability shows.
        cue: the word before the answer, which each model reads in the prompt of its head; the places
            where both models answer are then paired. None reads the texts alone.
        rank: rank of every writer's update.
        ridge: strength of both regressions, as in :func:`umaf.tensors.ridge`.
        truncate: cut probes that are longer than a window.

    Returns:
        Writer name -> (A [rank, in], B [out, rank]), float32; zeros where source and base agree.

    Raises:
        ProbeError: a probe does not fit, or no token of the two models meets.
        ModelError: the base has another shape than the source.
    """
    _check_base(source, base)
    there, here = pair(source, target, probes, cue, truncate=truncate)
    goals = _goals(source, base, target, (there, here), ridge)
    names = _names(target)
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    for layer, writer in _writers(target, here).items():
        norms = _norms(target, layer)
        with _adapted(target, factors):
            inputs, outputs = read(target, here, [writer, layer, *norms])
        missing = goals[names.index(layer)] - outputs[layer]
        # Where a norm ends the block (BERT), the writer has to undo it.
        ending = next((norm for norm in norms if torch.equal(outputs[norm], outputs[layer])), None)
        if ending is not None:
            missing = _before_norm(
                missing, inputs[ending], cast(nn.LayerNorm, bare(target.net).get_submodule(ending))
            )
        x = inputs[writer].double()
        delta = tensors.ridge(x, missing.double(), strength=ridge).T
        a, b = tensors.truncate_weighted(delta, x.T @ x / len(x), rank)
        factors[writer] = (a.float().contiguous(), b.float().contiguous())
    return factors


def _check_base(source: Model, base: Model) -> None:
    shapes = [(m.config.model_type, m.layers, m.width, m.tokenizer.get_vocab()) for m in (source, base)]
    if shapes[0] != shapes[1]:
        raise ModelError(
            f'"{base.name}" was given as the base of "{source.name}", but they differ in architecture, size or '
            "vocabulary; name the model that the source was fine-tuned from."
        )


def _goals(
    source: Model, base: Model, target: Model, places: tuple[Places, Places], ridge: float
) -> list[Tensor]:
    """Wanted outputs of the target's layers: the present ones and the mapped shift, [row, hidden] each."""
    there, here = places
    own, expert, first = _names(target), _names(source), _names(base)
    meets = depth_layers(len(expert), [(at + 1) / len(own) for at in range(len(own))])
    after = read(source, there, [expert[at] for at in sorted(set(meets))])[1]
    before = read(base, there, [first[at] for at in sorted(set(meets))])[1]
    present = read(target, here, own)[1]
    goals = []
    for name, at in zip(own, meets, strict=True):
        x, y = before[first[at]].double(), present[name].double()
        across = tensors.ridge(x - x.mean(0), y - y.mean(0), strength=ridge)
        shift = (after[expert[at]] - before[first[at]]).double() @ across
        goals.append(present[name] + shift.float())
    return goals


def _writers(target: Model, here: Places) -> dict[str, str]:
    """Layer name -> name of the linear module that runs last in it, in the order of the layers."""
    modules = lora_modules(target)
    with watched(target, modules) as seen:
        run(target, here.batch.take([0]))
    ran = {layer: [name for name in seen if name.startswith(f"{layer}.")] for layer in _names(target)}
    return {layer: names[-1] for layer, names in ran.items() if names}


def _norms(target: Model, layer: str) -> list[str]:
    """LayerNorms of the width of the hidden states inside a layer."""
    inside = bare(target.net).get_submodule(layer).named_modules()
    return [
        f"{layer}.{name}"
        for name, module in inside
        if isinstance(module, nn.LayerNorm) and module.weight.numel() == target.width
    ]


def _before_norm(missing: Tensor, x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Turn what a LayerNorm's output lacks into what its input x lacks, mean and spread kept."""
    gain = norm.weight.detach().float().cpu()
    spread = (x.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
    # A channel that the norm all but closes would ask for an endless shift.
    return missing * spread * gain / (gain**2 + 1e-4 * (gain**2).mean())


def _adapted(target: Model, factors: Mapping[str, tuple[Tensor, Tensor]]) -> AbstractContextManager[None]:
    """Let a target run with an update."""
    if not factors:
        return nullcontext()
    basis = {name: (b.to(target.device), a.T.to(target.device)) for name, (a, b) in factors.items()}
    rank = next(iter(factors.values()))[0].shape[0]
    return cores(target, basis, torch.eye(rank, device=target.device).expand(len(basis), rank, rank))


def _names(model: Model) -> list[str]:
    """Full names of the layers of the stack that reads the text."""
    layers = {id(layer) for layer in layer_list(model)}
    return [name for name, module in bare(model.net).named_modules() if id(module) in layers]
