"""Ways to normalise activations before they are compared with the anchors.

Each takes texts `[text, hidden]` and anchors `[anchor, hidden]` of one layer, float64, and returns
both normalised. The coordinate of a text is the inner product with each anchor, which is a cosine
wherever the vectors come back with length 1 (all but `none`).

| name | does | unchanged by |
|---|---|---|
| centred | subtracts the anchors' mean | shift, rotation, scale |
| whitened | centres, and gives the anchors the same spread in every direction | shift, rotation, scale |
| l2 | takes the vectors as they are | rotation, scale |
| layer | centres and scales each vector over its own units, as a layer norm | permutation, scale |
| none | nothing; inner products over the width, not cosines | rotation |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from torch import Tensor

from umaf.registry import Registry
from umaf.tensors.whiten import whitener

Normaliser = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

NORMALISATIONS = Registry(
    "normalisation",
    "umaf.normalisations",
    {
        "centred": "umaf.activations.normalise:centred",
        "whitened": "umaf.activations.normalise:whitened",
        "l2": "umaf.activations.normalise:l2",
        "layer": "umaf.activations.normalise:layer",
        "none": "umaf.activations.normalise:none",
    },
)


def normaliser(name: str) -> Normaliser:
    """Return the normalisation of that name.

    Raises:
        RegistryError: no such name.

    Example:
        >>> normaliser("l2").__name__
        'l2'
    """
    return cast(Normaliser, NORMALISATIONS.get(name))


def centred(texts: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Subtract the anchors' mean, then bring every vector to length 1.

    Hidden states of transformers share a large common part, which makes all cosines nearly 1; the
    mean of the anchors removes it.
    """
    mean = anchors.mean(0)
    longest = _longest(anchors)
    return unit(texts - mean, longest), unit(anchors - mean, longest)


def whitened(texts: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Whiten by the anchors' covariance with shrinkage, then bring every vector to length 1."""
    white = whitener(anchors)
    flat = white(anchors)
    return unit(white(texts), _longest(flat)), unit(flat, _longest(flat))


def l2(texts: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Bring every vector to length 1."""
    return unit(texts, _longest(anchors)), unit(anchors, _longest(anchors))


def layer(texts: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Subtract each vector's mean over its own units, then bring it to length 1."""
    longest = _longest(anchors)
    rows, axes = (side - side.mean(-1, keepdim=True) for side in (texts, anchors))
    return unit(rows, longest), unit(axes, longest)


def none(texts: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Leave the vectors as they are, but for the square root of the width."""
    root = texts.shape[-1] ** 0.5
    return texts / root, anchors / root


def unit(vectors: Tensor, longest: float) -> Tensor:
    """Bring vectors `[row, hidden]` to length 1; one that is nothing but rounding becomes 0.

    Args:
        vectors: what is left after a mean was taken away.
        longest: length of the longest vector before; a millionth of it is rounding, since activations
            come in float32. It follows the scale of the activations, so that scaling changes nothing.
    """
    length = vectors.norm(dim=-1, keepdim=True)
    floor = 1e-6 * longest
    return vectors * (length > floor) / length.clamp_min(max(floor, 1e-300))


def _longest(vectors: Tensor) -> float:
    return float(vectors.norm(dim=-1).max())
