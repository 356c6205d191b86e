"""Twin-Merging: what the experts share, merged, and what is each one's own, compressed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from umaf.merging.contract import Span
from umaf.merging.stores.packer import Packer, Parts


def twin(
    deltas: Float[Tensor, " expert *shape"],
    *,
    scale: float = 0.3,
    share: Annotated[float, Span(0, 1, open_low=True)] = 0.1,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """Merge the experts by task arithmetic, and keep what each differs from that in its largest singular directions.

    A mixture comes back as the shared delta plus the weighted exclusive parts; the weights may be fixed, or chosen for
    every input by a router, the parts being low-rank side branches then.

    Args:
        deltas: one per expert.
        scale: the shared delta is so many times the sum of all (the paper uses 0.29 and 0.3).
        share: how many of a matrix's singular values are kept, in (0, 1]; at least one. Vectors are kept whole.
        dtype: of all numbers; that of the base where a store is made.

    Returns:
        "shared"; for matrices "down.0" `[rank, in]` and "up.0" `[out, rank]`, and so on for each expert; for other
        tensors "own.0", ….

    Source: Lu et al., Twin-Merging, NeurIPS 2024, sections 4.1 and 4.2.

    Example:
        >>> parts = twin(torch.eye(4).expand(2, 4, 4), scale=0.5)
        >>> unpack(parts, torch.tensor([1.0, 0.0]), (4, 4), {}).diagonal().tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    # The exclusive parts correct what rounding does to the shared one.
    shared = (scale * deltas.sum(0)).to(dtype)
    own = deltas - shared.float()
    parts = {"shared": shared}
    for number, rest in enumerate(own):
        if rest.ndim != 2:
            parts[f"own.{number}"] = rest.to(dtype)
            continue
        left, values, right = torch.linalg.svd(rest, full_matrices=False)
        # Counted from the share that is left out, as in the authors' program: a tenth of 40 is 3 there, by rounding.
        rank = max(1, int((1 - (1 - share)) * len(values)))
        root = values[:rank].sqrt()
        parts[f"up.{number}"] = (left[:, :rank] * root).to(dtype).contiguous()
        parts[f"down.{number}"] = (root[:, None] * right[:rank]).to(dtype).contiguous()
    return parts


def unpack(parts: Parts, weights: Tensor, shape: Sequence[int], totals: Parts) -> Tensor:
    """Give the shared delta plus the weighted exclusive parts back, `[*shape]` float32.

    Example: see `twin`.
    """
    delta = parts["shared"].float()
    for number, weight in enumerate(weights.tolist()):
        if not weight:
            continue
        if f"own.{number}" in parts:
            delta = delta + weight * parts[f"own.{number}"].float()
        else:
            delta = delta + weight * (parts[f"up.{number}"].float() @ parts[f"down.{number}"].float())
    return delta


PACKER = Packer(twin, unpack, "Lu et al., Twin-Merging, NeurIPS 2024, arXiv 2406.15479")
