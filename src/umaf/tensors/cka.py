"""Centred kernel alignment: how alike two representations of the same items are."""

from __future__ import annotations

import torch
from torch import Tensor

from umaf.errors import NumericalError


def cka(x: Tensor, y: Tensor, *, unbiased: bool = False) -> float:
    """Compare two representations of the same items by linear CKA.

    The biased form lies in [0, 1] and is near 1 for any two wide representations of few items. The
    unbiased form is 0 on average for unrelated ones and may be a little below 0.

    Args:
        x: `[item, feature]`.
        y: `[item, feature]`, the same items in the same order; the width may differ.
        unbiased: use the unbiased estimate of HSIC, which needs at least 4 items.

    Returns:
        The alignment; 0 where one side does not vary.

    Raises:
        NumericalError: where items differ in number, are too few, or are not finite.

    Source: Kornblith et al., ICML 2019, equation 4; unbiased HSIC: Song et al., JMLR 2012,
    equation 5.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 3.0]])
        >>> round(cka(x, 5 * x), 6)
        1.0
    """
    least = 4 if unbiased else 2
    if x.ndim != 2 or y.ndim != 2 or x.shape[0] != y.shape[0] or x.shape[0] < least:
        raise NumericalError(
            f"CKA needs two matrices [item, feature] of the same {least} or more items, got "
            f"{list(x.shape)} and {list(y.shape)}; give both the same items."
        )
    left, right = _centred(x), _centred(y)
    if not (torch.isfinite(left).all() and torch.isfinite(right).all()):
        raise NumericalError("CKA was given values that are NaN or infinite; check both inputs.")
    hsic = _hsic_unbiased if unbiased else _hsic
    gram_x, gram_y = left @ left.T, right @ right.T
    own = hsic(gram_x, gram_x) * hsic(gram_y, gram_y)
    if own <= 0:
        return 0.0
    return hsic(gram_x, gram_y) / own**0.5


def _centred(x: Tensor) -> Tensor:
    # float64: the gram matrix squares the condition of x
    wide = x.to(torch.float64)
    centred = wide - wide.mean(0)
    # A side that does not vary must give exactly nothing, not the rounding of its mean.
    tiny = 1e-12 * wide.abs().max() if wide.numel() else 0.0
    return torch.where(centred.abs() <= tiny, torch.zeros_like(centred), centred)


def _hsic(gram_x: Tensor, gram_y: Tensor) -> float:
    """Return the biased estimate up to its constant; rows are centred already."""
    return float((gram_x * gram_y).sum())


def _hsic_unbiased(gram_x: Tensor, gram_y: Tensor) -> float:
    items = gram_x.shape[0]
    k = gram_x - torch.diag(gram_x.diagonal())
    m = gram_y - torch.diag(gram_y.diagonal())
    trace = (k * m).sum()
    means = k.sum() * m.sum() / ((items - 1) * (items - 2))
    shared = 2.0 * (k.sum(0) @ m.sum(0)) / (items - 2)
    return float((trace + means - shared) / (items * (items - 3)))
