"""The small coordinate space that `solve` moves in: per module, r output and r input directions.

An adapter is ``dW = U R V^T`` with fixed orthonormal U [out, r] and V [in, r], and the core R [r, r] to be found
(LoRA-XS: Balazy et al., 2024, take U and V from the singular vectors of W). Here they are the directions in which
the target's answers on the probes are most sensitive: V spans the strongest inputs where gradients are large, U the
strongest output gradients. One backward pass over the probes gives both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from umaf import seeds
from umaf.generation.decisions import Asked, Decisions, batches, decide
from umaf.generation.watch import watched

MIXED = 3

Basis = Mapping[str, tuple[Float[Tensor, "out rank"], Float[Tensor, "in rank"]]]


def sensitive_basis(
    asked: Sequence[Asked], modules: Sequence[str], rank: int, *, batch_size: int = 64
) -> Basis:
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
        for rows in batches(one, batch_size):
            with watched(one.model, modules, graph=True) as seen:
                decisions = decide(one, rows)
            outputs = [seen[name][1] for name in modules]
            for value in _contrasts(decisions):
                gradients = torch.autograd.grad(value, outputs, retain_graph=True, allow_unused=True)
                for name, gradient in zip(modules, gradients, strict=True):
                    if gradient is not None:
                        _gather(inner, outer, name, cast(Tensor, seen[name][0]), gradient)
    return {
        name: (_leading(outer[name], rank), _leading(inner[name], rank)) for name in modules if name in inner
    }


def _contrasts(decisions: Decisions) -> Iterator[Tensor]:
    """Choices against the mean of their decision, summed over probes; of two choices one says it all.

    Of many choices three random combinations stand for all, equal to them on average.
    """
    logits = decisions.logits - decisions.logits.mean(-1, keepdim=True)
    logits = logits * decisions.mask[..., None]
    width = logits.shape[2]
    mix = torch.eye(width, device=logits.device)[:, : 1 if width == 2 else width]
    if width > MIXED + 1:
        draw = seeds.generator(0, "sensitive", *logits.shape)
        mix = (torch.randint(0, 2, (width, MIXED), generator=draw) * 2.0 - 1).to(logits.device) / MIXED**0.5
    for step in range(logits.shape[1]):
        for column in mix.T:
            yield (logits[:, step] * column).sum()


def _gather(inner: dict, outer: dict, name: str, x: Tensor, g: Tensor) -> None:
    x, g = x.reshape(-1, x.shape[-1]).float(), g.reshape(-1, g.shape[-1]).float()
    weighted = x * g.norm(dim=-1, keepdim=True)
    inner[name] = inner.get(name, 0) + weighted.T @ weighted
    outer[name] = outer.get(name, 0) + g.T @ g


def _leading(gram: Tensor, rank: int) -> Tensor:
    # In float32, LAPACK gives up on some matrices with many eigenvalues of 0.
    return torch.linalg.eigh(gram.double()).eigenvectors[:, -rank:].flip(-1).float().contiguous()


def narrowed(basis: Basis, cores: Float[Tensor, "module wide wide"], rank: int) -> tuple[Basis, Tensor]:
    """Keep, per module, the `rank` directions that carry most of an update.

    Args:
        basis: directions of a wider rank.
        cores: the update in them.
        rank: how many directions stay.

    Returns:
        The narrower basis, and the update cut to it, [module, rank, rank] (diagonal).
    """
    kept, cut = {}, []
    for (name, (u, v)), core in zip(basis.items(), cores, strict=True):
        left, size, right = torch.linalg.svd(core)
        kept[name] = (u @ left[:, :rank], v @ right[:rank].T)
        cut.append(torch.diag(size[:rank]))
    return kept, torch.stack(cut)
