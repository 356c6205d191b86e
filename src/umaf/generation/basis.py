"""The small coordinate space that `solve` moves in: per module, r output and r input directions.

An adapter is ``dW = U R V^T`` with fixed orthonormal U [out, r] and V [in, r], and the core R [r, r] to be found
(LoRA-XS: Balazy et al., 2024, take U and V from the singular vectors of W). Here they are the directions in which
the target's answers on the probes are most sensitive: V spans the strongest inputs where gradients are large, U the
strongest output gradients. One backward pass over the probes gives both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from umaf.generation.decisions import Asked, decide
from umaf.generation.watch import watched
from umaf.models import Model, bare

Basis = Mapping[str, tuple[Float[Tensor, "out rank"], Float[Tensor, "in rank"]]]


def singular_basis(model: Model, modules: Sequence[str], rank: int) -> Basis:
    """Take each module's own leading singular vectors as directions (LoRA-XS).

    Returns:
        Module name -> (U [out, rank], V [in, rank]), float32.
    """
    basis = {}
    for name in modules:
        module = bare(model.net).get_submodule(name)
        weight = module.weight.detach().float()
        weight = weight.T if type(module).__name__ == "Conv1D" else weight
        u, _, v = torch.linalg.svd(weight, full_matrices=False)
        basis[name] = (u[:, :rank].contiguous(), v[:rank].T.contiguous())
    return basis


def sensitive_basis(asked: Sequence[Asked], modules: Sequence[str], rank: int, *, batch_size: int = 64) -> Basis:
    """Take the directions in which the decisions on the probes are most sensitive.

    Per module, with inputs x and, for each choice c of a decision, output gradients g_c: V holds the leading
    eigenvectors of sum |g|^2 x x^T, U those of sum g g^T over all tokens, probes and choices. That is the best
    rank-r factor of each side of the Jacobian of the decisions with respect to W, whose rows are g x^T.

    Returns:
        Module name -> (U [out, rank], V [in, rank]), float32.
    """
    inner: dict[str, Tensor] = {}
    outer: dict[str, Tensor] = {}
    for one in asked:
        for start in range(0, len(one), batch_size):
            rows = range(start, min(start + batch_size, len(one)))
            with watched(one.model, modules, graph=True) as seen:
                decisions = decide(one, rows)
            logits = decisions.logits - decisions.logits.mean(-1, keepdim=True)
            logits = logits * decisions.mask[..., None]
            outputs = [seen[name][1] for name in modules]
            for step in range(logits.shape[1]):
                for choice in range(logits.shape[2]):
                    gradients = torch.autograd.grad(
                        logits[:, step, choice].sum(), outputs, retain_graph=True, allow_unused=True
                    )
                    for name, gradient in zip(modules, gradients, strict=True):
                        if gradient is not None:
                            _gather(inner, outer, name, cast(Tensor, seen[name][0]), gradient)
    return {name: (_leading(outer[name], rank), _leading(inner[name], rank)) for name in modules if name in inner}


def _gather(inner: dict, outer: dict, name: str, x: Tensor, g: Tensor) -> None:
    x, g = x.reshape(-1, x.shape[-1]).float(), g.reshape(-1, g.shape[-1]).float()
    weighted = x * g.norm(dim=-1, keepdim=True)
    inner[name] = inner.get(name, 0) + weighted.T @ weighted
    outer[name] = outer.get(name, 0) + g.T @ g


def _leading(gram: Tensor, rank: int) -> Tensor:
    return torch.linalg.eigh(gram).eigenvectors[:, -rank:].flip(-1).contiguous()
