"""EMR-Merging: one elected vector, and for each expert a mask of where it agrees and one number of how much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from umaf.merging.stores.bits import pack_bits, unpack_bits
from umaf.merging.stores.packer import Packer, Parts


def emr(
    deltas: Float[Tensor, " expert *shape"],
    *,
    sizes: Literal["tensors", "entries"] = "tensors",
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """Elect a sign per entry and the largest magnitude among the experts that have it; mask and rescale per expert.

    Expert i comes back as `scale_i * mask_i * elected`, where the mask holds the entries whose sign agrees and the
    scale makes the mean magnitude over all tensors the expert's own.

    Args:
        deltas: one per expert.
        sizes: "tensors" takes the mean magnitude of each tensor, and then their mean, so that small tensors count as
            much as large ones: two of the authors' programs, and FusionBench. "entries" takes it over all entries at
            once: the paper, and the authors' program for 30 image models.
        dtype: of the elected numbers; those of the base where a store is made.

    Returns:
        "elected", "mask.0", … at one bit an entry, and "size" `[expert, 2]`: the sums (or means) of magnitudes of the
        delta and of the masked elected vector, from which the scales are made.

    Source: Huang et al., EMR-Merging, NeurIPS 2024, section 3.2.

    Example:
        >>> parts = emr(torch.tensor([[1.0, -2.0], [3.0, 1.0]]))
        >>> unpack(parts, torch.tensor([1.0, 0.0]), (2,), scales([parts]))
        tensor([ 1.8000, -1.2000])
    """
    sign = torch.where(deltas.sum(0) > 0, 1.0, -1.0)
    agrees = deltas * sign > 0
    largest = torch.where(agrees, deltas.abs(), 0.0).amax(0).to(dtype).float()
    elected = sign * largest
    axes = tuple(range(1, deltas.ndim))
    own = deltas.double().abs().sum(axes) if axes else deltas.double().abs()
    masked = (agrees * largest).double().sum(axes) if axes else (agrees * largest).double()
    entries = max(1, deltas[0].numel()) if sizes == "tensors" else 1
    masks = {f"mask.{number}": pack_bits(mask) for number, mask in enumerate(agrees)}
    return {"elected": elected.to(dtype), "size": torch.stack([own, masked], 1) / entries, **masks}


def scales(every: Sequence[Parts]) -> dict[str, Tensor]:
    """Make the scale of each expert from the sizes of all tensors; 1 where the masked vector is 0."""
    own, masked = torch.stack([parts["size"] for parts in every]).sum(0).unbind(1)
    return {"scale": torch.where(masked > 0, own / masked.clamp_min(1e-300), 1.0).float()}


def unpack(parts: Parts, weights: Tensor, shape: Sequence[int], totals: Parts) -> Tensor:
    """Give a mixture of rescaled, masked vectors back, `[*shape]` float32.

    Example: see `emr`.
    """
    much = sum(
        weight * scale * unpack_bits(parts[f"mask.{number}"], shape)
        for number, (weight, scale) in enumerate(zip(weights.tolist(), totals["scale"].tolist(), strict=True))
    )
    return parts["elected"].float() * much


PACKER = Packer(
    emr,
    unpack,
    "Huang et al., EMR-Merging, NeurIPS 2024, arXiv 2405.17461",
    total=scales,
    per_tensor=("size",),
)
