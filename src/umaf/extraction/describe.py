"""A description of fixed length of how a model arranges texts, whatever the number of probes.

Per depth it holds four blocks, each the expert's minus the base's:

| block | entries | says |
|---|---|---|
| mean | A | towards which anchors the probes moved |
| spread | A | along which anchors the probes were drawn apart or together |
| covariance | A (A + 1) / 2 | which anchors now tell the same probes apart |
| arrangement | A (A + 1) / 2 | how the anchors themselves moved against each other |

The last does not look at the probes at all. Each block is divided by the square root of its number
of entries, so that blocks of hundreds and of thousands count alike; symmetric blocks keep their
upper triangle with the off-diagonal times the square root of 2, which keeps inner products. No
change of the model gives exactly 0, and doubling the shift of means and arrangement doubles it.

The quarter of a million numbers are then folded into 4096 by a fixed feature hashing: every entry is
added, with a fixed sign, to one fixed place. Inner products are kept up to a relative error of about
1 / sqrt(4096), no matrix has to be stored, and the places depend on nothing but their names.

Source: Charikar, Chen, Farach-Colton, Finding frequent items in data streams, 2002; Weinberger et
al., Feature hashing for large scale multitask learning, ICML 2009.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from umaf.extraction.inputs import Inputs
from umaf.seeds import derive

DESCRIPTION = 4096
VERSION = "1"


def describe(inputs: Inputs) -> Tensor:
    """Reduce inputs to 4096 numbers.

    Args:
        inputs: from `read_inputs`; any number of probes from 2 on.

    Returns:
        `[4096]` float64.
    """
    total = torch.zeros(DESCRIPTION, dtype=torch.float64)
    for depth in range(inputs.coordinates.shape[0]):
        own = blocks(inputs.coordinates[depth], inputs.gram[depth])
        if inputs.base_coordinates is not None and inputs.base_gram is not None:
            base = blocks(inputs.base_coordinates[depth], inputs.base_gram[depth])
            own = {name: own[name] - base[name] for name in own}
        for name, block in own.items():
            places, signs = _places(f"{depth} {name}", block.numel())
            total.index_add_(0, places, signs * block / block.numel() ** 0.5)
    return total


def blocks(coordinates: Tensor, gram: Tensor) -> dict[str, Tensor]:
    """Compute the four blocks of one model at one depth.

    Args:
        coordinates: `[probe, anchor]`.
        gram: `[anchor, anchor]`.

    Returns:
        Vectors by the names of the table above, float64.
    """
    rows = coordinates.double()
    mean = rows.mean(0)
    centred = rows - mean
    covariance = centred.T @ centred / max(len(rows) - 1, 1)
    return {
        "mean": mean,
        "spread": covariance.diagonal().clamp_min(0).sqrt(),
        "covariance": _triangle(covariance),
        "arrangement": _triangle(gram.double()),
    }


def _triangle(matrix: Tensor) -> Tensor:
    """Flatten a symmetric matrix so that inner products of matrices stay what they are."""
    rows, columns = torch.triu_indices(*matrix.shape)
    values = matrix[rows, columns]
    return torch.where(rows == columns, values, values * 2**0.5)


@cache
def _places(name: str, length: int) -> tuple[Tensor, Tensor]:
    """Draw each entry's place `[length]` and sign `[length]`."""
    # RandomState's stream is frozen by numpy's compatibility policy; torch's and Generator's are not.
    stream = np.random.RandomState(derive(0, "describe", VERSION, name) % 2**32)
    places = torch.from_numpy(stream.randint(0, DESCRIPTION, length).astype(np.int64))
    return places, torch.from_numpy(stream.randint(0, 2, length) * 2.0 - 1.0)
