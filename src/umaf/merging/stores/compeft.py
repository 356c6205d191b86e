"""ComPEFT: deltas as signs. The largest entries keep their sign and nothing else; one number scales them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from umaf.merging.contract import Passes, PerModel, Span
from umaf.merging.stores.bits import count_bits, pack_bits, unpack_bits
from umaf.merging.stores.packer import Packer, Parts
from umaf.tensors.select import kth_largest


def measure(
    passes: Passes, *, models: int, density: PerModel = 0.2, alpha: PerModel = 1.0
) -> dict[str, Tensor]:
    """Find each expert's threshold and scale over its whole delta.

    Returns:
        "threshold" `[expert]`, the magnitude of the last entry that is kept, and "scale" `[expert]`, alpha times the
        standard deviation of the delta.
    """
    count, first, second = 0, torch.zeros(models, dtype=torch.double), torch.zeros(models, dtype=torch.double)
    for _, chunk in passes():
        count += chunk.shape[1]
        first += chunk.double().sum(1)
        second += chunk.double().square().sum(1)
    square = (second / count - (first / count).square()).clamp_min(0)
    spread = (square * count / max(count - 1, 1)).sqrt()
    kept = torch.as_tensor(density, dtype=torch.double).expand(models)
    # The authors' program compares with the entry below the share, and so keeps it too.
    ranks = [[min(count, int(share * count) + 1)] for share in kept.tolist()]
    threshold = kth_largest(lambda: (chunk.abs() for _, chunk in passes()), lambda entries: ranks)[:, 0]
    much = torch.as_tensor(alpha, dtype=torch.double).expand(models)
    return {"threshold": threshold.float(), "scale": (much * spread).float()}


def compeft(
    deltas: Float[Tensor, " expert *shape"],
    *,
    totals: Parts | None = None,
    density: Annotated[PerModel, Span(0, 1, open_low=True)] = 0.2,
    alpha: Annotated[PerModel, Span(0, open_low=True)] = 1.0,
) -> dict[str, Tensor]:
    """Replace a delta by the signs of its largest entries, at two bits an entry.

    An expert comes back as `alpha * std(delta) * sign` where its magnitude is among the largest, and 0 elsewhere. The
    threshold and the deviation are the whole model's. Packing what came back gives the same bits again.

    Args:
        deltas: one per expert.
        totals: what `measure` found over the whole model; found on these deltas alone when not given.
        density: share of entries kept, in (0, 1]; one for all experts or one each. As in the authors' program
            int(density n) + 1 of n, and all that equal the smallest of them.
        alpha: above 0. The paper searches 0.5 to 10 on validation texts; 1 works for large models.

    Returns:
        "plus.0" and "minus.0", … at one bit an entry.

    Source: Yadav et al., ComPEFT, 2023, section 2 and algorithm 1.

    Example:
        >>> row = torch.tensor([[4.0, -3.0, 0.1, 0.0]])
        >>> found = measure(lambda: iter([("", row)]), models=1, density=0.25)
        >>> unpack(compeft(row, totals=found), torch.ones(1), (4,), found).sign()
        tensor([ 1., -1.,  0.,  0.])
    """
    flat = deltas.reshape(len(deltas), -1)
    found = totals or measure(lambda: iter([("", flat)]), models=len(deltas), density=density, alpha=alpha)
    parts = {}
    for number, (delta, least) in enumerate(zip(flat, found["threshold"].tolist(), strict=True)):
        # A threshold of 0 would keep every 0 as well, which has no sign.
        parts[f"plus.{number}"] = pack_bits((delta >= least) & (delta > 0))
        parts[f"minus.{number}"] = pack_bits((delta <= -least) & (delta < 0))
    return parts


def unpack(parts: Parts, weights: Tensor, shape: Sequence[int], totals: Parts) -> Tensor:
    """Give a weighted sum of scaled signs back, `[*shape]` float32.

    Example: see `compeft`.
    """
    delta = torch.zeros(tuple(shape))
    for number, (weight, scale) in enumerate(zip(weights.tolist(), totals["scale"].tolist(), strict=True)):
        if weight:
            delta += weight * scale * unpack_bits(parts[f"plus.{number}"], shape)
            delta -= weight * scale * unpack_bits(parts[f"minus.{number}"], shape)
    return delta


def inner(parts: Parts, one: int, other: int) -> int:
    """Inner product of two experts' signs, counted on bits without unpacking; times both scales it is that of deltas.

    Example:
        >>> parts = compeft(torch.tensor([[2.0, -2.0], [2.0, 2.0]]), density=1.0)
        >>> inner(parts, 0, 0), inner(parts, 0, 1)
        (2, 0)
    """
    plus, minus = (parts[f"{sign}.{one}"] for sign in ("plus", "minus"))
    more, less = (parts[f"{sign}.{other}"] for sign in ("plus", "minus"))
    agree = count_bits(plus & more) + count_bits(minus & less)
    return agree - count_bits(plus & less) - count_bits(minus & more)


def majority(parts: Parts, experts: int) -> dict[str, Tensor]:
    """Merge the experts in packed form: for every entry the sign that most of them have, as one more pair of masks.

    Returns:
        "plus" and "minus", at one bit an entry; neither where the votes are even.

    Example:
        >>> parts = compeft(torch.tensor([[2.0, -2.0], [2.0, 2.0], [2.0, 2.0]]), density=1.0)
        >>> majority(parts, 3)["plus"]
        tensor([192], dtype=torch.uint8)
    """
    size = 8 * len(parts["plus.0"])
    votes = torch.zeros(size, dtype=torch.int16)
    for number in range(experts):
        votes += unpack_bits(parts[f"plus.{number}"], (size,))
        votes -= unpack_bits(parts[f"minus.{number}"], (size,)).short()
    return {"plus": pack_bits(votes > 0), "minus": pack_bits(votes < 0)}


PACKER = Packer(
    compeft, unpack, "Yadav et al., ComPEFT, 2023, arXiv 2311.13171, algorithm 1", measure=measure
)
