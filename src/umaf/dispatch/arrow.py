"""Arrow: LoRAs chosen for every token in every module, without training and without a first pass.

A LoRA's prototype in a module is the input direction its update answers to most strongly: the top right singular vector
of B A. A token's hidden state goes to the LoRAs whose prototypes it points along, in either direction, because the sign
of a singular vector means nothing.

Source: Ostapenko et al., Towards Modular LLMs by Building and Reusing a Library of LoRAs, 2024, section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from umaf.dispatch.loras import LoraShelf, Pool, hooked
from umaf.errors import ConfigError
from umaf.models import Model


@contextmanager
def arrow(shelf: LoraShelf, *, top: int = 3, temperature: float = 1.0) -> Iterator[Model]:
    """Route every token to LoRAs while the block runs.

    Args:
        shelf: the LoRAs.
        top: how many serve a token; at most as many as a module has.
        temperature: of the softmax over their scores; higher is more even.

    Yields:
        The base, with every token routed.

    Raises:
        ConfigError: no LoRA per token, or a temperature that is not above 0.
    """
    if top < 1 or temperature <= 0:
        raise ConfigError(
            f"Arrow was asked for with {top} LoRAs per token at temperature {temperature:g}; both must be above 0."
        )
    rules = {name: (pool, _rule(pool, top, temperature)) for name, pool in shelf.pools.items()}
    with hooked(shelf.model, rules):
        yield shelf.model


def prototypes(pool: Pool) -> Tensor:
    """Give every LoRA's input direction, ``[LoRA, in]`` of unit length; found in the space of its rank.

    With A = R Q (rows of Q orthonormal) the right singular vectors of B A are those of B R, turned by Q.

    Example:
        >>> one = Pool(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0], [1.0]]), torch.tensor([0]))
        >>> prototypes(one).abs()
        tensor([[0.6000, 0.8000]])
    """
    found = []
    for owner in pool.owner.unique().tolist():
        mine = pool.owner == owner
        q, r = torch.linalg.qr(pool.a[mine].double().T)
        _, _, vh = torch.linalg.svd(pool.b[:, mine].double() @ r.T, full_matrices=False)
        found.append(vh[0] @ q.T)
    return torch.stack(found).to(pool.a.dtype)


def shares(x: Tensor, directions: Tensor, *, top: int, temperature: float = 1.0) -> Tensor:
    """Weigh LoRAs for hidden states: softmax over the `top` largest of ``|x . direction|``, 0 for the others.

    Args:
        x: ``[.., in]``.
        directions: ``[LoRA, in]``.
        top: how many are kept.
        temperature: of the softmax.

    Returns:
        ``[.., LoRA]``, adding up to one.

    Example:
        >>> shares(torch.tensor([5.0, -5.0, 0.0]), torch.eye(3), top=2)
        tensor([0.5000, 0.5000, 0.0000])
    """
    scores = (x @ directions.T).abs().float() / temperature
    kept, which = scores.topk(min(top, len(directions)), dim=-1)
    return torch.zeros_like(scores).scatter(-1, which, kept.softmax(-1)).to(x.dtype)


def _rule(pool: Pool, top: int, temperature: float) -> Callable[[Tensor], Tensor]:
    directions = prototypes(pool)
    place = torch.unique(pool.owner, return_inverse=True)[1]

    def share(x: Tensor) -> Tensor:
        return shares(x.to(directions.dtype), directions, top=top, temperature=temperature)[..., place]

    return share
