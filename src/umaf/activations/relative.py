"""Relative representations: a text as its similarities to the anchors."""

from __future__ import annotations

import torch
from torch import Tensor

from umaf.activations.normalise import normaliser
from umaf.errors import NumericalError


def relative(activations: Tensor, anchor_activations: Tensor, *, normalisation: str = "centred") -> Tensor:
    """Turn activations of any width into similarities to the same anchors.

    Args:
        activations: `[layer, text, hidden]`.
        anchor_activations: `[layer, anchor, hidden]` of the same model and layers.
        normalisation: a registered name; see `umaf.activations.normalise`.

    Returns:
        `[layer, text, anchor]` float32, cosines in [-1, 1] (inner products for `none`).

    Raises:
        NumericalError: shapes that do not fit, or values that are not finite.
        RegistryError: no such normalisation.

    Source: Moschella et al., Relative representations enable zero-shot latent space communication,
    ICLR 2023, equation 1.

    Example:
        >>> import torch
        >>> anchors = torch.eye(3)[None]
        >>> relative(anchors, anchors, normalisation="l2")[0].diagonal().tolist()
        [1.0, 1.0, 1.0]
    """
    shape, other = activations.shape, anchor_activations.shape
    fits = len(shape) == len(other) == 3 and (shape[0], shape[2]) == (other[0], other[2])
    if not fits:
        raise NumericalError(
            f"relative coordinates need activations [layer, text, hidden] and anchors [layer, "
            f"anchor, hidden] of the same model, got {list(shape)} and {list(other)}."
        )
    normalise = normaliser(normalisation)
    layers = []
    # float64: hidden states have a few units a thousand times larger than the rest, and the
    # difference of two models' cosines must survive the subtraction of the mean.
    for texts, anchors in zip(activations.double(), anchor_activations.double(), strict=True):
        left, right = normalise(texts, anchors)
        layers.append(left @ right.T)
    coordinates = torch.stack(layers)
    if not torch.isfinite(coordinates).all():
        raise NumericalError(
            f'normalisation "{normalisation}" gave coordinates that are NaN or infinite; check '
            f"the activations, or choose another normalisation."
        )
    return coordinates.float()
