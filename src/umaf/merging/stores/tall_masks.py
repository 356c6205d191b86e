"""TALL-masks: the sum of all deltas once, and for each expert the entries of it that are its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from umaf.merging.contract import PerModel, Span, as_column
from umaf.merging.stores.bits import pack_bits, unpack_bits
from umaf.merging.stores.packer import Packer, Parts


def tall_masks(
    deltas: Float[Tensor, " expert *shape"],
    *,
    share: Annotated[PerModel, Span(0)] = 0.4,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """Keep the sum of the deltas, and a mask per expert: where `|own| > share * |sum of the others|`.

    An expert comes back as the sum, masked. Where experts touch different weights that is all but exact; a single
    expert comes back exactly.

    Args:
        deltas: one per expert.
        share: the paper's lambda, at least 0, one for all experts or one each. The larger, the fewer entries an expert
            keeps. The paper chooses it per task in 0.2 to 0.6 on labelled validation texts; 0.4 needs no data.
        dtype: of the sum; that of the base where a store is made.

    Returns:
        "sum", and "mask.0", "mask.1", … at one bit an entry.

    Source: Wang et al., Localizing Task Information for Improved Model Merging and Compression, ICML 2024, equation 5.

    Example:
        >>> parts = tall_masks(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        >>> unpack(parts, torch.tensor([0.0, 1.0]), (2,), {})
        tensor([0., 2.])
    """
    total = deltas.sum(0)
    own = deltas.abs() > as_column(share, deltas) * (total - deltas).abs()
    masks = {f"mask.{number}": pack_bits(mask) for number, mask in enumerate(own)}
    return {"sum": total.to(dtype), **masks}


def unpack(parts: Parts, weights: Tensor, shape: Sequence[int], totals: Parts) -> Tensor:
    """Give a mixture of masked sums back, `[*shape]` float32.

    Example: see `tall_masks`.
    """
    masks = (unpack_bits(parts[f"mask.{number}"], shape) for number in range(len(weights)))
    much = sum(weight * mask for weight, mask in zip(weights.tolist(), masks, strict=True))
    return parts["sum"].float() * much


PACKER = Packer(tall_masks, unpack, "Wang et al., ICML 2024, arXiv 2405.07813, equations 4 and 5")
